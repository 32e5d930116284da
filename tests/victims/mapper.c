/* mapper: goes on changing its own address space, and knows what must be in it.
 *
 * Each slot of a reserved range holds nothing, or a mapping of some pages with a protection.  A beat
 * does one thing to one slot: map, unmap, grow, shrink, move (mremap), empty pages (MADV_DONTNEED),
 * write, protect.  Asked, it compares the bytes, and /proc/self/maps.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOTS = 256, SLOT_PAGES = 32, STRIDE = SLOT_PAGES + 1 }; /* a page between slots stays free */
enum { MAP, UNMAP, GROW, SHRINK, MOVE, EMPTY, WRITE, PROTECT, THINGS };

static const char *const things[THINGS] = {
	"mapped", "unmapped", "grown", "shrunk", "moved", "emptied", "written", "protected"
};
static const int protections[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };

static uint64_t beat_us = 1000;
static bool empty_whole;

static struct slot {
	unsigned pages;
	int protection;
	uint64_t content[SLOT_PAGES]; /* key of each page's bytes, 0: it reads as zeros */
} slots[SLOTS];

static char *base;
static uint64_t steps, done[THINGS], keys;

static const struct victim_option options[] = {
	{ "beat-us", VICTIM_U64, &beat_us, "time between changes (default 1000)" },
	/* While CRIU restores lazily, to empty a part of a mapping splits it, and mremap then fails. */
	{ "empty-whole", VICTIM_FLAG, &empty_whole, "empty no part of a mapping, but all of it" },
	{ 0 },
};

static char *page_at(const struct slot *s, unsigned page)
{
	return base + ((size_t)(s - slots) * STRIDE + page) * VICTIM_PAGE;
}

static void protect(const struct slot *s, int protection)
{
	if (s->pages && mprotect(page_at(s, 0), (size_t)s->pages * VICTIM_PAGE, protection))
		victim_die("mprotect");
}

static void write_page(struct slot *s, unsigned page)
{
	s->content[page] = ++keys;
	victim_fill(page_at(s, page), VICTIM_PAGE, keys);
}

static void map(struct slot *s, unsigned pages)
{
	void *p = mmap(page_at(s, 0), (size_t)pages * VICTIM_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == MAP_FAILED)
		victim_die("mmap of slot %td", s - slots);
	memset(s, 0, sizeof *s);
	s->pages = pages;
	s->protection = PROT_READ | PROT_WRITE;
	for (unsigned i = 0; i < pages; i += 2) /* every other page is never touched */
		write_page(s, i);
}

static void unmap(struct slot *s)
{
	if (munmap(page_at(s, 0), (size_t)s->pages * VICTIM_PAGE))
		victim_die("munmap");
	memset(s, 0, sizeof *s);
}

static void resize(struct slot *s, unsigned pages)
{
	if (mremap(page_at(s, 0), (size_t)s->pages * VICTIM_PAGE, (size_t)pages * VICTIM_PAGE, 0) ==
	    MAP_FAILED)
		victim_die("mremap of slot %td", s - slots);
	for (unsigned i = pages; i < s->pages; i++)
		s->content[i] = 0;
	s->pages = pages;
}

static void move(struct slot *s, struct slot *to)
{
	size_t bytes = (size_t)s->pages * VICTIM_PAGE;

	if (mremap(page_at(s, 0), bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, page_at(to, 0)) ==
	    MAP_FAILED)
		victim_die("mremap to slot %td", to - slots);
	*to = *s;
	memset(s, 0, sizeof *s);
}

static void empty(struct slot *s, unsigned from)
{
	if (madvise(page_at(s, from), (size_t)(s->pages - from) * VICTIM_PAGE, MADV_DONTNEED))
		victim_die("madvise");
	for (unsigned i = from; i < s->pages; i++)
		s->content[i] = 0;
}

static bool change(struct slot *s, unsigned thing, uint64_t random)
{
	unsigned n = random % SLOT_PAGES;
	struct slot *other = &slots[random % SLOTS];

	if (!s->pages != (thing == MAP))
		return false;
	switch (thing) {
	case MAP:
		map(s, n + 1);
		return true;
	case UNMAP:
		unmap(s);
		return true;
	case GROW:
		if (n < s->pages)
			return false;
		resize(s, n + 1);
		return true;
	case SHRINK:
		if (!n || n >= s->pages)
			return false;
		resize(s, n);
		return true;
	case MOVE:
		if (other->pages)
			return false;
		move(s, other);
		return true;
	case EMPTY:
		empty(s, empty_whole ? 0 : n % s->pages);
		return true;
	case WRITE:
		if (!(s->protection & PROT_WRITE))
			return false;
		write_page(s, n % s->pages);
		return true;
	default:
		s->protection = protections[random % 3];
		protect(s, s->protection);
		return true;
	}
}

static void step(void)
{
	uint64_t r;
	unsigned thing;

	do {
		r = victim_mix(++steps, 1);
		thing = r % THINGS;
	} while (!change(&slots[(r >> 8) % SLOTS], thing, r >> 32));
	done[thing]++;
}

static bool all_zero(const char *page)
{
	for (unsigned i = 0; i < VICTIM_PAGE; i++)
		if (page[i])
			return false;
	return true;
}

static void check_bytes(const struct slot *s)
{
	protect(s, s->protection | PROT_READ);
	for (unsigned i = 0; i < s->pages; i++) {
		const char *page = page_at(s, i);

		if (!s->content[i] && !all_zero(page))
			victim_problem("slot %td, page %u at %p: wanted zeros", s - slots, i, (void *)page);
		else if (s->content[i] && victim_compare(page, VICTIM_PAGE, s->content[i]) >= 0)
			victim_problem("slot %td, page %u at %p: wanted content %" PRIu64
				       ", byte %ld is wrong", s - slots, i, (void *)page, s->content[i],
				       victim_compare(page, VICTIM_PAGE, s->content[i]));
	}
	protect(s, s->protection);
}

/* One line of /proc/self/maps: takes from `found` the pages of the slot that it tells about. */
static void check_line(const char *line, unsigned *found)
{
	uint64_t from, to, at = (uintptr_t)base;
	const uint64_t stride = (uint64_t)STRIDE * VICTIM_PAGE;
	int protection;
	char p[5];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &from, &to, p) != 3 || from < at ||
	    from >= at + SLOTS * stride)
		return;
	protection = (p[0] == 'r' ? PROT_READ : 0) | (p[1] == 'w' ? PROT_WRITE : 0);
	at = (from - at) / stride;
	found[at] += (unsigned)((to - from) / VICTIM_PAGE);
	if (protection != slots[at].protection || p[2] != '-' || p[3] != 'p')
		victim_problem("slot %" PRIu64 ": wanted protection %d, found %s", at,
			       slots[at].protection, p);
}

static void check_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned found[SLOTS] = { 0 };
	char line[512];

	if (!f) {
		victim_problem("/proc/self/maps cannot be read");
		return;
	}
	while (fgets(line, sizeof line, f))
		check_line(line, found);
	fclose(f);
	for (unsigned i = 0; i < SLOTS; i++)
		if (found[i] != slots[i].pages)
			victim_problem("slot %u: wanted %u pages mapped, found %u", i, slots[i].pages,
				       found[i]);
}

static void put(void)
{
	uint64_t mapped = 0;

	for (unsigned i = 0; i < SLOTS; i++)
		mapped += slots[i].pages;
	victim_put_u64("pages", mapped);
	victim_put_u64("base_at", (uintptr_t)base);
	for (unsigned i = 0; i < THINGS; i++)
		victim_put_u64(things[i], done[i]);
}

int main(int argc, char **argv)
{
	size_t bytes = (size_t)SLOTS * STRIDE * VICTIM_PAGE;

	victim_begin("mapper", argc, argv, options);
	/* Away from where the kernel puts other mappings, which would fill the holes. */
	base = mmap((void *)0x200000000000, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED || munmap(base, bytes))
		victim_die("mmap of the range");
	for (unsigned i = 0; i < SLOTS; i += 2)
		map(&slots[i], 1 + i % SLOT_PAGES);
	victim_ready();
	while (victim_wait((int64_t)beat_us * 1000)) {
		victim_beat();
		step();
		if (!victim_asked())
			continue;
		check_maps();
		for (unsigned i = 0; i < SLOTS; i++)
			check_bytes(&slots[i]);
		victim_report(put);
	}
	return 0;
}
