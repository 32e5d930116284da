/* What all victims share: options, going into the background, signals, the heartbeat, the report.
 *
 *	victim_begin("piggie", argc, argv, options);	parses, forks, leads a session
 *	... set up ...
 *	victim_ready();					prints the PID; the starter exits 0
 *	while (victim_wait(interval_ns)) {		until SIGTERM
 *		victim_beat();
 *		... work ...
 *		if (victim_asked()) {			SIGUSR1
 *			check();			calls victim_problem() for all that is wrong
 *			victim_report(put_specifics);
 *		}
 *	}
 *	return 0;
 */
#ifndef VICTIM_H
#define VICTIM_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VICTIM_PAGE = 4096 };

#define VICTIM_MS 1000000LL
#define VICTIM_SECOND 1000000000LL

enum victim_type { VICTIM_STR, VICTIM_PATH, VICTIM_U64, VICTIM_FLAG };

/* One option of a victim; a table of them ends with a null name. */
struct victim_option {
	const char *name; /* without the dashes */
	enum victim_type type;
	void *to; /* const char **, const char **, uint64_t *, bool * */
	const char *help;
};

void victim_begin(const char *name, int argc, char **argv, const struct victim_option *options);
void victim_ready(void);

/* Sleeps, but wakes for a signal.  False: SIGTERM came, clean up and return 0 from main. */
bool victim_wait(int64_t ns);
bool victim_stopping(void);
/* True once for each SIGUSR1. */
bool victim_asked(void);
/* SIGUSR1 and SIGTERM are blocked but while waiting: the mask for ppoll and epoll_pwait. */
const sigset_t *victim_wait_mask(void);
/* Blocks a signal for ever, while waiting too. */
void victim_block(int sig);
/* In a child process of a victim: the victim's stdio; SIGTERM kills it, SIGUSR1 is ignored. */
void victim_child_begin(void);

/* Counts a beat; the nanoseconds since the last one by CLOCK_REALTIME. */
int64_t victim_beat(void);
int64_t victim_now(void);
/* A gap longer than this is an outage: listed, and no work is caught up after it. */
#define VICTIM_OUTAGE (30 * VICTIM_MS)

/* What is wrong now; forgotten after the next report. */
void victim_problem(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* What went wrong and cannot be seen again (a wrong byte received): in all reports from now on.
 * Both may be called by any thread, and by any process of the victim's tree. */
void victim_lasting(const char *format, ...) __attribute__((format(printf, 1, 2)));

void victim_report(void (*put_specifics)(void));
/* For put_specifics: one member of the report. */
void victim_put_u64(const char *name, uint64_t value);
void victim_put_ms(const char *name, int64_t ns);
void victim_put_str(const char *name, const char *value);

/* Says what failed, with errno, and exits 1. */
_Noreturn void victim_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void victim_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *victim_map(size_t bytes, int flags);

/* A pseudo-random word that follows from two numbers (splitmix64): any byte can be derived again. */
static inline uint64_t victim_mix(uint64_t a, uint64_t b)
{
	uint64_t z = a * 0x9e3779b97f4a7c15ULL + b * 0xd1b54a32d192ed03ULL + 0x632be59bd9b4e019ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* Fills, or compares, bytes that follow from a key; the offset of the first wrong byte, or -1. */
void victim_fill(void *to, size_t bytes, uint64_t key);
long victim_compare(const void *have, size_t bytes, uint64_t key);

/* Inside victim.c and report.c. */
struct victim_common {
	const char *name, *report, *log;
	bool foreground, pidns;
};
extern struct victim_common victim_common;
void victim_problems_init(void);
void victim_beats_init(void);

#endif
