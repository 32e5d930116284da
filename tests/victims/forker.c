/* forker: goes on forking children, each of which checks the memory it inherited, and exits.
 *
 * The memory changes between forks, so living children share some of it with their parent and keep
 * older versions of the rest.  A child waits before it looks: so some are alive at any moment.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, CHANGED = 8 };

static uint64_t size_kb = 1024, children = 8, hold_ms = 40, beat_ms = 5;

static unsigned char *mem;
static uint64_t pages, *versions, cursor, forked, exited;
static pid_t living[MOST];

static const struct victim_option options[] = {
	{ "size-kb", VICTIM_U64, &size_kb, "memory to inherit (default 1024)" },
	{ "children", VICTIM_U64, &children, "at most so many at a time (default 8)" },
	{ "hold-ms", VICTIM_U64, &hold_ms, "how long a child waits before it looks (default 40)" },
	{ "beat-ms", VICTIM_U64, &beat_ms, "time between forks (default 5)" },
	{ 0 },
};

static void write_page(uint64_t page)
{
	victim_fill(mem + page * VICTIM_PAGE, VICTIM_PAGE, victim_mix(page, versions[page]));
}

static uint64_t wrong_pages(const char *who)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < pages; i++) {
		long at = victim_compare(mem + i * VICTIM_PAGE, VICTIM_PAGE, victim_mix(i, versions[i]));

		if (at < 0)
			continue;
		victim_lasting("%s: page %" PRIu64 ", version %" PRIu64 ": byte %ld is wrong", who, i,
			       versions[i], at);
		wrong++;
	}
	return wrong;
}

static _Noreturn void child(uint64_t number)
{
	struct timespec ts = { (time_t)hold_ms / 1000, (long)(hold_ms % 1000) * VICTIM_MS };
	char who[32];

	victim_child_begin();
	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &ts) == EINTR)
		;
	snprintf(who, sizeof who, "child %" PRIu64, number);
	_exit(wrong_pages(who) ? 1 : 0);
}

static void fork_one(void)
{
	for (uint64_t i = 0; i < children; i++) {
		if (living[i])
			continue;
		living[i] = fork();
		if (living[i] < 0)
			victim_die("fork");
		if (!living[i])
			child(forked);
		forked++;
		return;
	}
}

static void reap(uint64_t slot, int options_of_wait)
{
	int status;
	pid_t pid = living[slot] ? waitpid(living[slot], &status, options_of_wait) : 0;

	if (!pid)
		return;
	if (pid < 0)
		victim_lasting("child with PID %d is lost: %s", living[slot], strerror(errno));
	else if (status)
		victim_lasting("child with PID %d: wait status %#x", pid, status);
	exited++;
	living[slot] = 0;
}

static void change(void)
{
	for (int i = 0; i < CHANGED; i++) {
		versions[cursor]++;
		write_page(cursor);
		cursor = (cursor + 1) % pages;
	}
}

static uint64_t count_living(void)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < children; i++)
		n += living[i] != 0;
	return n;
}

static void put(void)
{
	victim_put_u64("forked", forked);
	victim_put_u64("exited", exited);
	victim_put_u64("living", count_living());
	victim_put_u64("pages", pages);
	victim_put_u64("mem_at", (uintptr_t)mem);
}

static void stop_children(void)
{
	for (uint64_t i = 0; i < children; i++)
		if (living[i])
			kill(living[i], SIGKILL);
	while (wait(NULL) > 0 || errno == EINTR)
		;
}

int main(int argc, char **argv)
{
	victim_begin("forker", argc, argv, options);
	pages = size_kb * 1024 / VICTIM_PAGE;
	if (!pages || !children || children > MOST)
		victim_usage("--size-kb: at least 4, --children: 1 to %d", MOST);
	mem = victim_map(pages * VICTIM_PAGE, MAP_PRIVATE);
	versions = victim_map(pages * sizeof *versions, MAP_PRIVATE);
	for (uint64_t i = 0; i < pages; i++)
		write_page(i);
	victim_ready();
	while (victim_wait((int64_t)beat_ms * VICTIM_MS)) {
		victim_beat();
		for (uint64_t i = 0; i < children; i++)
			reap(i, WNOHANG);
		change();
		fork_one();
		if (!victim_asked())
			continue;
		wrong_pages("parent");
		if (forked != exited + count_living())
			victim_problem("children: %" PRIu64 " forked, %" PRIu64 " exited", forked, exited);
		victim_report(put);
	}
	stop_children();
	return 0;
}
