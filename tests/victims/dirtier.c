/* dirtier: holds memory of several kinds, dirties it at a steady rate, and can check every byte.
 *
 * What a page holds follows from its number and its version alone, so a check derives all of it
 * again and compares; the versions are kept in a table apart from the pages.  Dirtying a page
 * writes its first, middle and last word, which is cheap; the rest of it is its fill.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORDS = VICTIM_PAGE / 8, MIDDLE = WORDS / 2, STALE = 64, TEXT_WORDS = 509 };
enum kind { PRIVATE, SHARED, FILE_PRIVATE, FILE_SHARED, KINDS };
enum fill { RANDOM, ZERO, TEXT };

static const char *const kind_names[KINDS] = {
	"private", "shared", "file_private", "file_shared"
};

static uint64_t size_mb = 64, rate = 1000, working_set, apart = 1, heartbeat_us = 2000;
static const char *kinds = "private", *file, *thp = "never", *fill_name = "random";
static enum fill fill;

static struct region {
	uint64_t first, pages, working_set;
	uint64_t (*mem)[WORDS];
} regions[KINDS];

static uint64_t pages, dirtied, bad_pages, cursor;
static uint32_t *versions;
static uint64_t text[TEXT_WORDS];
static double due; /* dirtyings owed, with the fraction left over from the last beat */

static const struct victim_option options[] = {
	{ "size-mb", VICTIM_U64, &size_mb, "memory of all kinds together (default 64)" },
	{ "rate", VICTIM_U64, &rate, "pages dirtied a second (default 1000)" },
	{ "working-set-pages", VICTIM_U64, &working_set, "dirty only so many (default: all)" },
	{ "apart", VICTIM_U64, &apart, "each so many pages from the one before (default 1)" },
	{ "heartbeat-us", VICTIM_U64, &heartbeat_us, "time between beats (default 2000)" },
	{ "kinds", VICTIM_STR, &kinds, "private, shared, file, with weights: private:2,file:1" },
	{ "file", VICTIM_PATH, &file, "the file of the kind file; written by the victim" },
	{ "thp", VICTIM_STR, &thp, "transparent huge pages: always, never (default)" },
	{ "fill", VICTIM_STR, &fill_name, "random (default), zero, text" },
	{ 0 },
};

static bool is_stamp(unsigned word)
{
	return word == 0 || word == MIDDLE || word == WORDS - 1;
}

static uint64_t fill_word(uint64_t page, unsigned word)
{
	switch (fill) {
	case ZERO:
		return 0;
	case TEXT:
		return text[(page * 37 + word) % TEXT_WORDS];
	default:
		return victim_mix(page, word);
	}
}

static uint64_t stamp(uint64_t page, uint32_t version, unsigned word)
{
	return victim_mix(page ^ (uint64_t)version << 32, ~(uint64_t)word);
}

static uint64_t wanted(uint64_t page, uint32_t version, unsigned word)
{
	return version && is_stamp(word) ? stamp(page, version, word) : fill_word(page, word);
}

static void make_text(void)
{
	static const char words[][8] = { "migrate ", "memory, ", "process ", "a page. ", "kernel\n " };

	for (unsigned i = 0; i < TEXT_WORDS; i++)
		memcpy(&text[i], words[victim_mix(i, 7) % 5], 8);
}

static void fill_page(uint64_t *page, uint64_t number)
{
	for (unsigned w = 0; w < WORDS; w++)
		page[w] = fill_word(number, w);
}

/* The weight of a kind in --kinds, 0 when it is not there. */
static uint64_t weight(const char *kind)
{
	size_t length = strlen(kind);

	for (const char *at = kinds; *at; at += strcspn(at, ","), at += *at == ',') {
		if (strncmp(at, kind, length))
			continue;
		if (at[length] == ':')
			return strtoull(at + length + 1, NULL, 10);
		if (!at[length] || at[length] == ',')
			return 1;
	}
	return 0;
}

static void share_out(void)
{
	uint64_t w[KINDS] = { weight("private") * 2, weight("shared") * 2 };
	uint64_t sum, first = 0, whole;

	w[FILE_PRIVATE] = w[FILE_SHARED] = weight("file");
	sum = w[PRIVATE] + w[SHARED] + 2 * weight("file");
	if (!sum)
		victim_usage("--kinds: none of private, shared, file: %s", kinds);
	if (weight("file") && !file)
		victim_usage("--kinds file wants --file");
	whole = size_mb * ((1 << 20) / VICTIM_PAGE);
	if (!apart)
		victim_usage("--apart: 0");
	if (!working_set || working_set > whole / apart)
		working_set = whole / apart;
	for (int k = 0; k < KINDS; k++) {
		regions[k].first = first;
		regions[k].pages = whole * w[k] / sum;
		regions[k].working_set = working_set * w[k] / sum;
		first += regions[k].pages;
	}
	pages = first;
	working_set = 0;
	for (int k = 0; k < KINDS; k++)
		working_set += regions[k].working_set;
	if (!working_set)
		victim_usage("no pages to dirty");
}

static void map_anonymous(struct region *r, int flags)
{
	if (!r->pages)
		return;
	r->mem = victim_map(r->pages * VICTIM_PAGE, flags);
	if (madvise(r->mem, r->pages * VICTIM_PAGE,
		    !strcmp(thp, "always") ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		victim_die("madvise");
	for (uint64_t i = 0; i < r->pages; i++)
		fill_page(r->mem[i], r->first + i);
}

static void write_file(int fd, uint64_t first, uint64_t count)
{
	uint64_t page[WORDS];

	for (uint64_t i = 0; i < count; i++) {
		fill_page(page, first + i);
		if (write(fd, page, sizeof page) != sizeof page)
			victim_die("write %s", file);
	}
}

/* The file is filled by writing: of the private mapping, only the dirtied pages are the process's own. */
static void map_file(void)
{
	struct region *p = &regions[FILE_PRIVATE], *s = &regions[FILE_SHARED];
	int fd;

	if (!p->pages)
		return;
	fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		victim_die("open %s", file);
	write_file(fd, p->first, p->pages + s->pages);
	p->mem = mmap(NULL, p->pages * VICTIM_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	s->mem = mmap(NULL, s->pages * VICTIM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		      (off_t)(p->pages * VICTIM_PAGE));
	if (p->mem == MAP_FAILED || s->mem == MAP_FAILED)
		victim_die("mmap %s", file);
	close(fd);
}

static void dirty_next(void)
{
	uint64_t left = cursor, page, *mem;
	struct region *r = regions;
	uint32_t version;

	for (; left >= r->working_set; r++)
		left -= r->working_set;
	left *= apart;
	page = r->first + left;
	mem = r->mem[left];
	version = ++versions[page];
	mem[0] = stamp(page, version, 0);
	mem[MIDDLE] = stamp(page, version, MIDDLE);
	mem[WORDS - 1] = stamp(page, version, WORDS - 1);
	dirtied++;
	if (++cursor == working_set)
		cursor = 0;
}

static void dirty(int64_t gap)
{
	/* After an outage the rate goes on: nothing is caught up. */
	if (gap > VICTIM_OUTAGE || gap < 0)
		gap = (int64_t)heartbeat_us * 1000;
	for (due += (double)rate * (double)gap / 1e9; due >= 1; due--)
		dirty_next();
}

/* A lost write shows as a page of an earlier version: worth telling from garbage. */
static void explain(const struct region *r, uint64_t local, unsigned word)
{
	uint64_t page = r->first + local, found = r->mem[local][word];
	uint32_t version = versions[page];
	char stale[48] = "";

	for (uint32_t back = 1; back <= version && back < STALE; back++)
		if (found == wanted(page, version - back, word)) {
			snprintf(stale, sizeof stale, " (that of version %u)", version - back);
			break;
		}
	victim_problem("page %" PRIu64 " (%s page %" PRIu64 " at %p), version %u, byte %u: "
		       "wanted %016" PRIx64 ", found %016" PRIx64 "%s",
		       page, kind_names[r - regions], local, (void *)r->mem[local], version, word * 8,
		       wanted(page, version, word), found, stale);
}

static void check_page(const struct region *r, uint64_t local)
{
	uint64_t page = r->first + local;
	const uint64_t *mem = r->mem[local];

	for (unsigned w = 0; w < WORDS; w++)
		if (mem[w] != wanted(page, versions[page], w)) {
			explain(r, local, w);
			bad_pages++;
			return;
		}
}

static void check(void)
{
	uint64_t sum = 0;

	bad_pages = 0;
	for (const struct region *r = regions; r < regions + KINDS; r++)
		for (uint64_t i = 0; i < r->pages; i++)
			check_page(r, i);
	for (uint64_t i = 0; i < pages; i++)
		sum += versions[i];
	if (sum != dirtied)
		victim_problem("versions: wanted %" PRIu64 " in all, found %" PRIu64, dirtied, sum);
}

static void put(void)
{
	victim_put_u64("pages", pages);
	victim_put_u64("bad_pages", bad_pages);
	victim_put_u64("dirtied", dirtied);
	victim_put_u64("working_set_pages", working_set);
	victim_put_u64("versions_at", (uintptr_t)versions);
	for (int k = 0; k < KINDS; k++) {
		char name[32];

		snprintf(name, sizeof name, "%s_at", kind_names[k]);
		victim_put_u64(name, (uintptr_t)regions[k].mem);
		snprintf(name, sizeof name, "%s_pages", kind_names[k]);
		victim_put_u64(name, regions[k].pages);
	}
}

static void read_options(void)
{
	static const char *const fills[] = { "random", "zero", "text" };

	while (fill <= TEXT && strcmp(fills[fill], fill_name))
		fill++;
	if (fill > TEXT)
		victim_usage("--fill: %s", fill_name);
	if (strcmp(thp, "always") && strcmp(thp, "never"))
		victim_usage("--thp: %s", thp);
	share_out();
}

int main(int argc, char **argv)
{
	victim_begin("dirtier", argc, argv, options);
	read_options();
	make_text();
	versions = victim_map(pages * sizeof *versions, MAP_PRIVATE);
	map_anonymous(&regions[PRIVATE], MAP_PRIVATE);
	map_anonymous(&regions[SHARED], MAP_SHARED);
	map_file();
	victim_ready();
	while (victim_wait((int64_t)heartbeat_us * 1000)) {
		dirty(victim_beat());
		if (!victim_asked())
			continue;
		check();
		victim_report(put);
	}
	return 0;
}
