/* crowd: many processes, of which the root beats and all others only wait.
 *
 * For what a move costs by the number of tasks, and for a heartbeat that is finer than a cutover.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 4096 };

static uint64_t tasks = 200, beat_us = 500;

static pid_t children[MOST];
static uint64_t many;

static const struct victim_option options[] = {
	{ "tasks", VICTIM_U64, &tasks, "how many processes, the root among them (default 200)" },
	{ "beat-us", VICTIM_U64, &beat_us, "time between beats (default 500)" },
	{ 0 },
};

static void check(void)
{
	for (uint64_t i = 0; i < many; i++)
		if (waitpid(children[i], NULL, WNOHANG))
			victim_lasting("child %d has ended, or is no child any more", (int)children[i]);
}

static void put(void)
{
	victim_put_u64("tasks", many + 1);
}

int main(int argc, char **argv)
{
	victim_begin("crowd", argc, argv, options);
	if (tasks < 1 || tasks > MOST)
		victim_usage("--tasks is 1 to %d", MOST);
	for (; many + 1 < tasks; many++) {
		pid_t pid = fork();

		if (pid < 0)
			victim_die("fork");
		if (pid == 0) {
			victim_child_begin();
			for (;;)
				pause();
		}
		children[many] = pid;
	}
	victim_ready();
	while (victim_wait((int64_t)beat_us * 1000)) {
		victim_beat();
		if (!victim_asked())
			continue;
		check();
		victim_report(put);
	}
	for (uint64_t i = 0; i < many; i++)
		kill(children[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	return 0;
}
