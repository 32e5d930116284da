/* The parts of the victim `tree` that are made once and compared at each check. */
#define _GNU_SOURCE
#include "tree.h"
#include "victim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PARKED = 3000, QUEUED = 3, EVENTS = 12345, DATAGRAMS = 3 };

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static int listener = -1;
static int event_fd, stream[2], datagram[2];

int pipe_bytes(int fd)
{
	int n = -1;

	return ioctl(fd, FIONREAD, &n) ? -1 : n;
}

bool wait_readable(int fd, int64_t ns)
{
	int64_t until = victim_now() + ns;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (victim_now() < until)
		if (poll(&p, 1, 50) > 0)
			return p.revents & POLLIN;
	return false;
}

void parked_make(struct parked *p, uint64_t key)
{
	char bytes[PARKED];
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		victim_die("pipe");
	p->in = fds[0];
	p->out = fds[1];
	p->key = key;
	victim_fill(bytes, sizeof bytes, key);
	if (write(p->out, bytes, sizeof bytes) != sizeof bytes)
		victim_die("write into a pipe");
}

void parked_check(struct parked *p, const char *who)
{
	char bytes[PARKED + 1];
	ssize_t n = read(p->in, bytes, sizeof bytes);
	long at;

	if (n != PARKED) {
		victim_problem("%s: unread pipe: wanted %d bytes, found %zd", who, PARKED, n);
	} else {
		at = victim_compare(bytes, PARKED, p->key);
		if (at >= 0)
			victim_problem("%s: unread pipe: byte %ld is wrong", who, at);
	}
	if (n > 0 && write(p->out, bytes, (size_t)n) != n)
		victim_problem("%s: unread pipe: cannot be filled again", who);
}

static void *work(void *arg)
{
	static _Thread_local uint64_t own;
	struct worker *w = arg;
	pid_t tid = gettid();

	atomic_store(&w->tid, tid);
	for (;;) {
		struct timespec ts = { 0, 3 * VICTIM_MS };

		own++;
		if (atomic_fetch_add(&w->count, 1) + 1 != own)
			victim_lasting("thread %d: its own count differs from the common one", tid);
		if (gettid() != tid)
			victim_lasting("thread %d: its ID became %d", tid, gettid());
		nanosleep(&ts, NULL);
	}
	return NULL;
}

void workers_start(struct worker *w, int count)
{
	for (int i = 0; i < count; i++) {
		errno = pthread_create(&w[i].thread, NULL, work, &w[i]);
		if (errno)
			victim_die("pthread_create");
		while (!atomic_load(&w[i].tid))
			sched_yield();
	}
}

static int count_threads(void)
{
	DIR *d = opendir("/proc/self/task");
	int n = 0;

	if (!d)
		return -1;
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void check_counting(struct worker *w, const char *who)
{
	uint64_t before = atomic_load(&w->count);
	int64_t until = victim_now() + PATIENCE_S * VICTIM_SECOND;
	struct timespec ts = { 0, VICTIM_MS };

	while (atomic_load(&w->count) == before && victim_now() < until)
		nanosleep(&ts, NULL);
	if (atomic_load(&w->count) == before)
		victim_problem("%s: thread %d stands still", who, atomic_load(&w->tid));
}

void workers_check(struct worker *w, int count, const char *who)
{
	int found = count_threads();

	if (found != count + 1)
		victim_problem("%s: threads: wanted %d, found %d", who, count + 1, found);
	for (int i = 0; i < count; i++) {
		if (tgkill(getpid(), atomic_load(&w[i].tid), 0))
			victim_problem("%s: thread %d is gone", who, atomic_load(&w[i].tid));
		else
			check_counting(&w[i], who);
	}
}

struct identity identity_now(void)
{
	return (struct identity){ getpid(), getppid(), getpgrp(), getsid(0) };
}

static void compare_id(const char *who, const char *what, pid_t want, pid_t found)
{
	if (want != found)
		victim_problem("%s: %s: wanted %d, found %d", who, what, want, found);
}

void identity_check(const struct identity *want, const char *who)
{
	struct identity found = identity_now();

	compare_id(who, "PID", want->pid, found.pid);
	/* Of the root, the parent is whoever started or restored it. */
	if (want->parent)
		compare_id(who, "parent", want->parent, found.parent);
	compare_id(who, "process group", want->group, found.group);
	compare_id(who, "session", want->session, found.session);
}

static void queue_signal(int number)
{
	union sigval value = { .sival_int = 40 + number };

	if (sigqueue(getpid(), SIGRTMIN + 1, value))
		victim_die("sigqueue");
}

void pending_make(void)
{
	victim_block(SIGUSR2);
	victim_block(SIGRTMIN + 1);
	kill(getpid(), SIGUSR2);
	for (int i = 0; i < QUEUED; i++)
		queue_signal(i);
}

static void check_mask(const char *who)
{
	sigset_t mask, pending;

	if (sigprocmask(SIG_SETMASK, NULL, &mask) || sigpending(&pending))
		victim_die("sigprocmask");
	if (!sigismember(&mask, SIGUSR2) || !sigismember(&mask, SIGRTMIN + 1))
		victim_problem("%s: SIGUSR2 or SIGRTMIN+1 is not blocked any more", who);
	if (sigismember(&mask, SIGHUP))
		victim_problem("%s: SIGHUP became blocked", who);
	if (!sigismember(&pending, SIGUSR2))
		victim_problem("%s: the pending SIGUSR2 is lost", who);
}

void pending_check(const char *who)
{
	struct timespec none = { 0, 0 };
	siginfo_t info;
	sigset_t set;

	check_mask(who);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	for (int i = 0; i < QUEUED; i++)
		if (sigtimedwait(&set, &info, &none) < 0)
			victim_problem("%s: queued signal %d is lost", who, i);
		else if (info.si_value.sival_int != 40 + i)
			victim_problem("%s: queued signal %d: wanted value %d, found %d", who, i,
				       40 + i, info.si_value.sival_int);
	if (sigtimedwait(&set, &info, &none) >= 0)
		victim_problem("%s: one more signal is queued than was sent", who);
	for (int i = 0; i < QUEUED; i++)
		queue_signal(i);
}

static void send_datagram(int number)
{
	uint64_t words[4];

	victim_fill(words, sizeof words, (uint64_t)number);
	if (send(datagram[1], words, sizeof words, MSG_DONTWAIT) != sizeof words)
		victim_problem("datagram %d cannot be sent", number);
}

void kept_make(void)
{
	char bytes[PARKED];

	event_fd = eventfd(EVENTS, EFD_CLOEXEC | EFD_NONBLOCK);
	if (event_fd < 0)
		victim_die("eventfd");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) ||
	    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, datagram))
		victim_die("socketpair");
	victim_fill(bytes, sizeof bytes, 99);
	if (send(stream[1], bytes, sizeof bytes, MSG_DONTWAIT) != sizeof bytes)
		victim_die("send into a socket pair");
	for (int i = 0; i < DATAGRAMS; i++)
		send_datagram(i);
}

static void check_datagrams(void)
{
	uint64_t words[8];

	for (int i = 0; i < DATAGRAMS; i++) {
		ssize_t n = recv(datagram[0], words, sizeof words, MSG_DONTWAIT);

		if (n != sizeof words / 2)
			victim_problem("unread datagram %d: wanted 32 bytes, found %zd", i, n);
		else if (victim_compare(words, (size_t)n, (uint64_t)i) >= 0)
			victim_problem("unread datagram %d: wrong bytes", i);
	}
	if (recv(datagram[0], words, sizeof words, MSG_DONTWAIT) >= 0)
		victim_problem("one more datagram is there than was sent");
	for (int i = 0; i < DATAGRAMS; i++)
		send_datagram(i);
}

void kept_check(void)
{
	char bytes[PARKED + 1];
	ssize_t n = recv(stream[0], bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
	uint64_t events = 0;

	if (n != PARKED)
		victim_problem("unread stream socket: wanted %d bytes, found %zd", PARKED, n);
	else if (victim_compare(bytes, PARKED, 99) >= 0)
		victim_problem("unread stream socket: wrong bytes");
	check_datagrams();
	if (read(event_fd, &events, sizeof events) != sizeof events || events != EVENTS)
		victim_problem("eventfd: wanted %d, found %" PRIu64, EVENTS, events);
	events = EVENTS;
	if (write(event_fd, &events, sizeof events) != sizeof events)
		victim_problem("eventfd: cannot be written");
}

void listener_make(const char *dir)
{
	int n = snprintf(address.sun_path, sizeof address.sun_path, "%s/tree.sock", dir);

	if (n >= (int)sizeof address.sun_path)
		victim_usage("--dir is too long for a socket: %s", dir);
	unlink(address.sun_path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) ||
	    listen(listener, 8))
		victim_die("listen on %s", address.sun_path);
}

int listener_connect(int *client)
{
	int server;

	*client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*client < 0 || connect(*client, (struct sockaddr *)&address, sizeof address))
		victim_die("connect to %s", address.sun_path);
	server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (server < 0)
		victim_die("accept on %s", address.sun_path);
	return server;
}

void listener_check(void)
{
	int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), server = -1;
	char c = 0;

	if (connect(client, (struct sockaddr *)&address, sizeof address)) {
		victim_problem("%s: connect: %s", address.sun_path, strerror(errno));
	} else {
		server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (write(client, "x", 1) != 1 || read(server, &c, 1) != 1 || c != 'x')
			victim_problem("%s: a byte through a new connection got lost",
				       address.sun_path);
	}
	close(client);
	if (server >= 0)
		close(server);
}

void listener_close(void)
{
	close(listener);
}

const char *listener_path(void)
{
	return address.sun_path;
}

static int timer;
static uint64_t period_ms, ticks;

int timer_make(uint64_t ms)
{
	int64_t ns = (int64_t)ms * VICTIM_MS;
	struct timespec each = { ns / VICTIM_SECOND, ns % VICTIM_SECOND };
	struct itimerspec its = { each, each };

	period_ms = ms;
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (timer < 0 || timerfd_settime(timer, 0, &its, NULL))
		victim_die("timerfd");
	return timer;
}

uint64_t timer_read(void)
{
	uint64_t n;

	if (read(timer, &n, sizeof n) == sizeof n)
		ticks += n;
	return ticks;
}

static int64_t timer_left(void)
{
	struct itimerspec its = { 0 };

	if (timerfd_gettime(timer, &its))
		victim_problem("timerfd: its time cannot be read");
	if (its.it_interval.tv_sec * 1000 + its.it_interval.tv_nsec / VICTIM_MS != (long)period_ms)
		victim_problem("timerfd: wanted a period of %" PRIu64 " ms", period_ms);
	return its.it_value.tv_sec * VICTIM_SECOND + its.it_value.tv_nsec;
}

/* Armed, and running: the time left becomes less, or a new period begins. */
void timer_check(void)
{
	int64_t left = timer_left();
	uint64_t before = ticks;

	victim_wait(VICTIM_MS);
	timer_read();
	if (left <= 0 || left > (int64_t)period_ms * VICTIM_MS)
		victim_problem("timerfd: not armed: %" PRId64 " ns left", left);
	else if (timer_left() >= left && ticks == before)
		victim_problem("timerfd: stands still, %" PRId64 " ns left", left);
}
