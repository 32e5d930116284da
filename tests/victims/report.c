/* The heartbeat, the problems, and the report, which is written whole or not at all. */
#define _GNU_SOURCE
#include "victim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { LISTED = 20, LENGTH = 240, GAPS = 64 };

/* In shared memory, without locks: any process of the tree may add to it, and may die doing so. */
struct problems {
	atomic_uint_fast64_t count;
	struct {
		atomic_bool whole;
		char text[LENGTH];
	} listed[LISTED];
};

static struct problems *passing, *lasting;

static struct {
	uint64_t counter, inverted; /* the same number twice, so that a torn one is seen */
	int64_t started, last, largest, largest_at, largest_ever;
	uint64_t ngaps;
	struct {
		int64_t at, ns;
		uint64_t beat;
	} gaps[GAPS];
} beats = { .inverted = ~0ULL };

static uint64_t reports;
static FILE *out;

int64_t victim_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * VICTIM_SECOND + t.tv_nsec;
}

void victim_problems_init(void)
{
	passing = victim_map(sizeof *passing, MAP_SHARED);
	lasting = victim_map(sizeof *lasting, MAP_SHARED);
}

static void add(struct problems *p, const char *format, va_list ap)
{
	uint64_t slot = atomic_fetch_add(&p->count, 1);

	if (slot >= LISTED)
		return;
	vsnprintf(p->listed[slot].text, LENGTH, format, ap);
	atomic_store(&p->listed[slot].whole, true);
}

void victim_problem(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	add(passing, format, ap);
	va_end(ap);
}

void victim_lasting(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	add(lasting, format, ap);
	va_end(ap);
}

static void new_window(void)
{
	beats.started = beats.last = victim_now();
	beats.largest = 0;
	beats.ngaps = 0;
}

void victim_beats_init(void)
{
	new_window();
}

/* On a busy machine there are many: the small ones make room. */
static uint64_t smallest_gap(void)
{
	uint64_t least = 0;

	for (uint64_t i = 1; i < GAPS; i++)
		if (beats.gaps[i].ns < beats.gaps[least].ns)
			least = i;
	return least;
}

static void note_gap(int64_t now, int64_t gap)
{
	uint64_t slot;

	if (gap > beats.largest) {
		beats.largest = gap;
		beats.largest_at = now - gap;
	}
	if (gap > beats.largest_ever)
		beats.largest_ever = gap;
	/* A clock that was set back is worth a line too: it makes all gaps doubtful. */
	if (gap <= VICTIM_OUTAGE && gap >= 0)
		return;
	slot = beats.ngaps < GAPS ? beats.ngaps : smallest_gap();
	beats.ngaps++;
	if (beats.ngaps > GAPS && gap >= 0 && gap < beats.gaps[slot].ns)
		return;
	beats.gaps[slot].at = now - gap;
	beats.gaps[slot].ns = gap;
	beats.gaps[slot].beat = beats.counter;
}

int64_t victim_beat(void)
{
	int64_t now = victim_now(), gap = now - beats.last;

	beats.counter++;
	beats.inverted--;
	note_gap(now, gap);
	beats.last = now;
	return gap;
}

static void put_text(const char *s)
{
	fputc('"', out);
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

void victim_put_u64(const char *name, uint64_t value)
{
	fprintf(out, ", \"%s\": %" PRIu64, name, value);
}

void victim_put_ms(const char *name, int64_t ns)
{
	fprintf(out, ", \"%s\": %.3f", name, (double)ns / 1e6);
}

void victim_put_str(const char *name, const char *value)
{
	fprintf(out, ", \"%s\": ", name);
	put_text(value);
}

static unsigned put_listed(const struct problems *p, unsigned listed)
{
	for (unsigned i = 0; i < LISTED && listed < LISTED; i++) {
		if (!atomic_load(&p->listed[i].whole))
			continue;
		fputs(listed++ ? ", " : "", out);
		put_text(p->listed[i].text);
	}
	return listed;
}

static void put_problems(void)
{
	uint64_t count;

	if (beats.counter != ~beats.inverted)
		victim_problem("counter: %" PRIu64 ", but its inverse says %" PRIu64,
			       beats.counter, ~beats.inverted);
	count = atomic_load(&passing->count) + atomic_load(&lasting->count);
	fprintf(out, ", \"ok\": %s, \"problem_count\": %" PRIu64 ", \"problems\": [",
		count ? "false" : "true", count);
	put_listed(passing, put_listed(lasting, 0));
	fputs("]", out);
	memset(passing, 0, sizeof *passing);
}

static void put_beats(void)
{
	victim_put_u64("counter", beats.counter);
	victim_put_u64("counter_at", (uintptr_t)&beats.counter);
	victim_put_ms("max_gap_ms", beats.largest);
	fprintf(out, ", \"max_gap_at\": %.6f", (double)beats.largest_at / 1e9);
	victim_put_ms("max_gap_ever_ms", beats.largest_ever);
	victim_put_ms("window_ms", beats.last - beats.started);
	victim_put_u64("gap_count", beats.ngaps);
	fputs(", \"gaps\": [", out);
	for (uint64_t i = 0; i < beats.ngaps && i < GAPS; i++)
		fprintf(out, "%s{\"at\": %.6f, \"ms\": %.3f, \"beat\": %" PRIu64 "}",
			i ? ", " : "", (double)beats.gaps[i].at / 1e9,
			(double)beats.gaps[i].ns / 1e6, beats.gaps[i].beat);
	fputs("]", out);
}

static void replace_report(const char *text, size_t length)
{
	char tmp[4096];
	FILE *f;

	snprintf(tmp, sizeof tmp, "%s.tmp", victim_common.report);
	f = fopen(tmp, "we");
	if (!f) {
		perror(tmp);
		return;
	}
	/* Not whole: not renamed. The asker notices that no report came. */
	if (fwrite(text, 1, length, f) != length || fclose(f))
		perror(tmp);
	else if (rename(tmp, victim_common.report))
		perror(victim_common.report);
}

void victim_report(void (*put_specifics)(void))
{
	char *text = NULL;
	size_t length = 0;

	out = open_memstream(&text, &length);
	if (!out)
		victim_die("open_memstream");
	fputs("{\"victim\": ", out);
	put_text(victim_common.name);
	fprintf(out, ", \"pid\": %d, \"report\": %" PRIu64, getpid(), ++reports);
	fprintf(out, ", \"rt_ns\": %" PRId64, victim_now());
	put_problems();
	put_beats();
	if (put_specifics)
		put_specifics();
	fputs("}\n", out);
	if (fclose(out))
		victim_die("report");
	replace_report(text, length);
	free(text);
	/* The check took time: that is no outage. */
	new_window();
}
