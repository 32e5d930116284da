/* piggie: appends the numbers 0, 1, 2, ... to a file, one decimal line a beat.
 *
 * The file stays open, without O_APPEND, so that its position has to survive as well; with --reopen
 * it is opened for each line instead.  Asked, it reads the file again: no hole, no repeat, no more
 * and no less than was written.  Any other process can check the file in the same way.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path;
static uint64_t interval_ms = 5;
static bool reopen;

static int fd = -1;
static uint64_t lines, bytes;

static const struct victim_option options[] = {
	{ "file", VICTIM_PATH, &path, "the file to append to; emptied first (required)" },
	{ "interval-ms", VICTIM_U64, &interval_ms, "time between lines (default 5)" },
	{ "reopen", VICTIM_FLAG, &reopen, "open the file for each line" },
	{ 0 },
};

static void open_file(int flags)
{
	fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
	if (fd < 0)
		victim_die("open %s", path);
}

static void append_line(void)
{
	char line[32];
	int length = snprintf(line, sizeof line, "%" PRIu64 "\n", lines);

	if (reopen)
		open_file(O_APPEND);
	if (write(fd, line, (size_t)length) != length)
		victim_lasting("write of line %" PRIu64 " failed or was short", lines);
	if (reopen)
		close(fd);
	lines++;
	bytes += (uint64_t)length;
}

static void check_position(void)
{
	off_t at = lseek(fd, 0, SEEK_CUR);

	if (at != (off_t)bytes)
		victim_problem("position: wanted %" PRIu64 ", found %jd", bytes, (intmax_t)at);
}

static void check_same_file(void)
{
	struct stat open_one, named;

	if (fstat(fd, &open_one) || stat(path, &named))
		victim_problem("stat of %s failed", path);
	else if (open_one.st_ino != named.st_ino || open_one.st_dev != named.st_dev)
		victim_problem("the open file is no longer %s", path);
}

static void check_content(void)
{
	FILE *f = fopen(path, "re");
	uint64_t n = 0, size = 0;
	char line[64], want[32];

	if (!f) {
		victim_problem("open %s for reading failed", path);
		return;
	}
	for (; fgets(line, sizeof line, f); n++) {
		snprintf(want, sizeof want, "%" PRIu64 "\n", n);
		size += strlen(line);
		if (!strcmp(line, want))
			continue;
		line[strcspn(line, "\n")] = 0;
		victim_problem("line %" PRIu64 ": wanted %" PRIu64 ", found '%s'", n, n, line);
	}
	fclose(f);
	if (n != lines)
		victim_problem("lines: wanted %" PRIu64 ", found %" PRIu64, lines, n);
	if (size != bytes)
		victim_problem("bytes: wanted %" PRIu64 ", found %" PRIu64, bytes, size);
}

static void put(void)
{
	victim_put_u64("lines", lines);
	victim_put_u64("bytes", bytes);
	victim_put_str("file", path);
}

int main(int argc, char **argv)
{
	victim_begin("piggie", argc, argv, options);
	if (!path)
		victim_usage("--file is missing");
	open_file(O_CREAT | O_TRUNC);
	if (reopen)
		close(fd);
	victim_ready();
	while (victim_wait((int64_t)interval_ms * VICTIM_MS)) {
		victim_beat();
		append_line();
		if (!victim_asked())
			continue;
		if (!reopen) {
			check_position();
			check_same_file();
		}
		check_content();
		victim_report(put);
	}
	return 0;
}
