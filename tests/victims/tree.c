/* tree: four processes with threads, and about all that ties processes together.
 *
 *	root -- ring pipe --> child 0 --> child 1 --> child 2 --> root	one token goes round
 *	root <-- stream socket pair --> each child			numbered messages, checks
 *	root <-- accepted unix connection --> child 0			numbered messages
 *	root <-- datagram socket pair --> child 1			numbered messages
 *
 * Child 1 leads a process group and has threads, child 2 leads a session.  The root has threads, an
 * epoll with a timerfd and an eventfd, a zombie child, a listening socket with a path, blocked
 * pending signals; and pipes, sockets and an eventfd that hold what nobody reads.
 *
 * The timerfd is slow on purpose: CRIU restores a periodic one that is due while it dumps as
 * disarmed (its issue 3162).  A small --timerfd-ms shows that.
 */
#define _GNU_SOURCE
#include "tree.h"
#include "victim.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ZOMBIE_STATUS = 7, EVENTS = 8 };
enum source { TIMER, EVENT, RING, CHANNEL }; /* epoll data; a channel adds its number */

static const char *dir;
static uint64_t beat_ms = 5, timer_ms = 3600 * 1000;

struct shared *shared;
static struct channel *channels[CHILDREN + CHANNELS];
static struct worker workers[ROOT_THREADS];
static struct parked parked;
static struct identity identity;
static int epoll, event, ring_in, ring_out;
static uint64_t token, hops, signalled, events_seen;
static bool holding; /* the root has the token, and does not pass it on: a check */
static pid_t zombie;

static const struct victim_option options[] = {
	{ "dir", VICTIM_PATH, &dir, "directory for the listening socket, tree.sock (required)" },
	{ "beat-ms", VICTIM_U64, &beat_ms, "time between beats (default 5)" },
	{ "timerfd-ms", VICTIM_U64, &timer_ms, "period of the timerfd (default: an hour)" },
	{ 0 },
};

static void send_message(struct channel *ch, enum message_type type)
{
	struct message m = { .type = type, .number = ++ch->sent };

	if (write(ch->fd, &m, sizeof m) != sizeof m)
		victim_lasting("%s: message %" PRIu64 " cannot be sent", ch->name, ch->sent);
}

static void receive_answer(struct channel *ch)
{
	struct message m = { 0 };
	ssize_t n = read(ch->fd, &m, sizeof m);

	if (n < 0 && errno == EINTR)
		return;
	if (n != sizeof m || m.number != ch->received + 1) {
		victim_lasting("%s: answer: wanted %" PRIu64 ", found %" PRIu64 " (%zd bytes)", ch->name,
			       ch->received + 1, m.number, n);
		if (n <= 0)
			epoll_ctl(epoll, EPOLL_CTL_DEL, ch->fd, NULL);
	}
	ch->received = n == sizeof m ? m.number : ch->received;
}

static void pass_token(void)
{
	token++;
	hops++;
	atomic_fetch_add(&shared->hops[0], 1);
	if (write(ring_out, &token, sizeof token) != sizeof token)
		victim_lasting("root: the token cannot be sent");
}

static void receive_token(void)
{
	uint64_t found = 0;
	ssize_t n = read(ring_in, &found, sizeof found);

	if (n < 0 && errno == EINTR)
		return;
	if (n == 0) {
		victim_lasting("root: the ring of pipes is broken");
		epoll_ctl(epoll, EPOLL_CTL_DEL, ring_in, NULL);
		return;
	}
	if (n != sizeof found || found != token + CHILDREN)
		victim_lasting("root: token: wanted %" PRIu64 ", found %" PRIu64 " (%zd bytes)",
			       token + CHILDREN, found, n);
	token = found;
	holding = true;
}

static void read_events(void)
{
	uint64_t n;

	if (read(event, &n, sizeof n) == sizeof n)
		events_seen += n;
}

static void on_beat(void)
{
	uint64_t one = 1;

	victim_beat();
	if (write(event, &one, sizeof one) == sizeof one)
		signalled++;
	if (holding) {
		holding = false;
		pass_token();
	}
	for (int i = 0; i < CHILDREN + CHANNELS; i++)
		if (channels[i]->sent == channels[i]->received)
			send_message(channels[i], PING);
}

static void dispatch(uint32_t source)
{
	switch (source) {
	case TIMER:
		timer_read();
		break;
	case EVENT:
		read_events();
		break;
	case RING:
		receive_token();
		break;
	default:
		receive_answer(channels[source - CHANNEL]);
	}
}

/* Only one source at a time, so that a check can wait for one thing and leave the rest. */
static bool turn(int timeout_ms)
{
	struct epoll_event e;

	if (epoll_pwait(epoll, &e, 1, timeout_ms, victim_wait_mask()) != 1)
		return false;
	dispatch(e.data.u32);
	return true;
}

static bool child_dead(const struct child *c)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid;
}

static bool check_alive(const struct child *c)
{
	siginfo_t info = { 0 };

	if (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT)) {
		victim_problem("child %d (PID %d) is no child any more", c->number, c->pid);
		return false;
	}
	if (info.si_pid)
		victim_problem("child %d (PID %d) is dead: %s %d", c->number, c->pid,
			       info.si_code == CLD_EXITED ? "exit" : "signal", info.si_status);
	return !info.si_pid;
}

static void check_children(void)
{
	for (struct child *c = children; c < children + CHILDREN; c++) {
		struct channel *ch = &c->control;

		if (!check_alive(c))
			continue;
		send_message(ch, CHECK);
		if (wait_readable(ch->fd, 2 * PATIENCE_S * VICTIM_SECOND))
			receive_answer(ch);
		else
			victim_problem("child %d (PID %d) does not answer", c->number, c->pid);
	}
}

static void check_zombie(void)
{
	siginfo_t info = { 0 };

	if (waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid)
		victim_problem("the zombie, PID %d, is lost", zombie);
	else if (info.si_code != CLD_EXITED || info.si_status != ZOMBIE_STATUS)
		victim_problem("the zombie, PID %d: wanted exit %d, found %d", zombie, ZOMBIE_STATUS,
			       info.si_status);
}

/* Lets all come to rest: every message answered, and the token in the root's hand. */
static void settle(void)
{
	int64_t until = victim_now() + PATIENCE_S * VICTIM_SECOND;
	bool rest = false;

	for (struct child *c = children; c < children + CHILDREN; c++)
		if (child_dead(c))
			until = victim_now() + VICTIM_SECOND / 5;
	while (!rest && victim_now() < until) {
		turn(20);
		rest = holding;
		for (int i = 0; i < CHILDREN + CHANNELS; i++)
			rest &= channels[i]->sent == channels[i]->received;
	}
	if (!holding)
		victim_problem("the token is lost: last seen %" PRIu64, token);
	for (int i = 0; i < CHILDREN + CHANNELS; i++)
		if (channels[i]->sent != channels[i]->received)
			victim_problem("%s: message %" PRIu64 " was not answered", channels[i]->name,
				       channels[i]->sent);
}

static void check_ring(void)
{
	uint64_t sum = 0;

	for (int i = 0; i <= CHILDREN; i++) {
		if (pipe_bytes(ring_pipes[i][0]) != 0)
			victim_problem("ring pipe %d holds %d bytes: a second token", i,
				       pipe_bytes(ring_pipes[i][0]));
		sum += atomic_load(&shared->hops[i]);
	}
	if (holding && sum != token)
		victim_problem("token: wanted %" PRIu64 " hops, found %" PRIu64, sum, token);
	if (atomic_load(&shared->hops[0]) != hops)
		victim_problem("root: shared counter: wanted %" PRIu64 ", found %" PRIu64, hops,
			       atomic_load(&shared->hops[0]));
}

static void check_events(void)
{
	read_events();
	if (events_seen != signalled)
		victim_problem("eventfd: wanted %" PRIu64 " events, found %" PRIu64, signalled,
			       events_seen);
}

static void check(void)
{
	settle();
	check_ring();
	check_children();
	check_zombie();
	listener_check();
	check_events();
	timer_check();
	identity_check(&identity, "root");
	workers_check(workers, ROOT_THREADS, "root");
	parked_check(&parked, "root");
	pending_check("root");
	kept_check();
}

static void put(void)
{
	char name[32];

	for (int i = 0; i < CHILDREN; i++) {
		snprintf(name, sizeof name, "child_%d_pid", i);
		victim_put_u64(name, (uint64_t)children[i].pid);
	}
	victim_put_u64("zombie_pid", (uint64_t)zombie);
	victim_put_u64("threads", ROOT_THREADS + 1);
	victim_put_u64("token", token);
	victim_put_u64("timer_ticks", timer_read());
	victim_put_u64("shared_at", (uintptr_t)shared);
	for (int i = 0; i < CHILDREN + CHANNELS; i++)
		victim_put_u64(channels[i]->name, channels[i]->received);
	victim_put_str("socket", listener_path());
}

static void watch(int fd, uint32_t source)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = source };

	if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e))
		victim_die("epoll_ctl");
}

static void make_processes(void)
{
	for (int i = 0; i < CHILDREN; i++) {
		children[i].number = i;
		child_start(&children[i]);
		channels[i] = &children[i].control;
	}
	channels[CHILDREN] = &children[0].extra;
	channels[CHILDREN + 1] = &children[1].extra;
	ring_close_others();
	zombie = fork();
	if (zombie < 0)
		victim_die("fork");
	if (!zombie)
		_exit(ZOMBIE_STATUS);
	/* An answer says that the child is set up. */
	for (int i = 0; i < CHILDREN + CHANNELS; i++) {
		send_message(channels[i], PING);
		receive_answer(channels[i]);
	}
}

static void make_sources(void)
{
	epoll = epoll_create1(EPOLL_CLOEXEC);
	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (epoll < 0)
		victim_die("epoll");
	watch(timer_make(timer_ms), TIMER);
	watch(event, EVENT);
	watch(ring_in, RING);
	for (int i = 0; i < CHILDREN + CHANNELS; i++)
		watch(channels[i]->fd, (uint32_t)(CHANNEL + i));
}

static void stop_children(void)
{
	for (int i = 0; i < CHILDREN; i++)
		kill(children[i].pid, SIGTERM);
	while (wait(NULL) > 0 || errno == EINTR)
		;
	unlink(listener_path());
}

static int until_next_beat(int64_t last)
{
	int64_t period = (int64_t)beat_ms * VICTIM_MS, left = last + period - victim_now();

	return left <= 0 || left > period ? 0 : (int)(left / VICTIM_MS) + 1;
}

int main(int argc, char **argv)
{
	victim_begin("tree", argc, argv, options);
	if (!dir)
		victim_usage("--dir is missing");
	shared = victim_map(sizeof *shared, MAP_SHARED);
	listener_make(dir);
	ring_make();
	ring_out = ring_pipes[0][1];
	ring_in = ring_pipes[CHILDREN][0];
	holding = true;
	make_processes();
	parked_make(&parked, 77);
	pending_make(); /* before the threads, which inherit what is blocked */
	workers_start(workers, ROOT_THREADS);
	kept_make();
	make_sources();
	identity = identity_now();
	identity.parent = 0;
	victim_ready();
	for (int64_t last = victim_now(); !victim_stopping();) {
		turn(until_next_beat(last));
		if (!until_next_beat(last)) {
			on_beat();
			last = victim_now();
		}
		if (!victim_asked())
			continue;
		check();
		victim_report(put);
	}
	stop_children();
	return 0;
}
