/* What the files of the victim `tree` share: see tree.c for what it is made of. */
#ifndef TREE_H
#define TREE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { CHILDREN = 3, ROOT_THREADS = 4, CHILD_THREADS = 2, CHANNELS = 2, PATIENCE_S = 10 };

/* Numbered messages, one at a time: the next is sent when the last one came back. */
struct channel {
	int fd; /* -1: none */
	uint64_t sent, received;
	const char *name;
};

enum message_type { PING = 1, CHECK = 2 };

struct message {
	uint32_t type;
	uint32_t unused;
	uint64_t number;
};

/* In memory shared by all processes; each also counts privately, and compares. */
struct shared {
	_Atomic uint64_t hops[CHILDREN + 1];
};
extern struct shared *shared;

/* A pipe with bytes in it that nobody reads, until the check looks at them. */
struct parked {
	int in, out;
	uint64_t key;
};
void parked_make(struct parked *p, uint64_t key);
void parked_check(struct parked *p, const char *who);

struct worker {
	pthread_t thread;
	_Atomic pid_t tid;
	_Atomic uint64_t count;
};
void workers_start(struct worker *w, int count);
/* Alive, of the same thread IDs, and counting. */
void workers_check(struct worker *w, int count, const char *who);

/* What a process must find unchanged about itself. */
struct identity {
	pid_t pid, parent, group, session;
};
struct identity identity_now(void);
void identity_check(const struct identity *want, const char *who);

/* Signals that stay blocked and pending: SIGUSR2, and a queue of SIGRTMIN + 1 with values. */
void pending_make(void);
void pending_check(const char *who);

/* Inside the root: an event counter and sockets that hold what nobody has read. */
void kept_make(void);
void kept_check(void);

/* The listening socket with a path. */
void listener_make(const char *dir);
/* Both ends of a new connection through it: the accepted one, and the client's. */
int listener_connect(int *client);
void listener_check(void);
void listener_close(void);
const char *listener_path(void);

/* A periodic timerfd; its descriptor. */
int timer_make(uint64_t period_ms);
/* Reads the ticks that are due; how many there were in all. */
uint64_t timer_read(void);
void timer_check(void);

/* Pipe i leads from process i to the next: the root is process 0, child k process k + 1. */
extern int ring_pipes[CHILDREN + 1][2];
void ring_make(void);
void ring_close_others(void);

int pipe_bytes(int fd);
bool wait_readable(int fd, int64_t ns);

struct child {
	int number;
	pid_t pid;
	int ring_in, ring_out;
	struct channel control, extra;
};
extern struct child children[CHILDREN];
void child_start(struct child *c);
_Noreturn void child_main(struct child *c);

#endif
