/* relay - a long or narrow link between two programs of this machine, for kernels without netem.
 *
 *   relay TARGET DELAY RATE QUEUE
 *
 * listens on a free port of 127.0.0.1, prints it, and joins each connection with one of its own to port TARGET.  In
 * each direction, each byte leaves DELAY milliseconds after it has passed a link of RATE bytes/s (0: no limit).  What
 * the link cannot take yet waits in front of it: in the receive buffer of the relay's socket, QUEUE bytes large (0: as
 * large as the kernel likes), and at most 2 ms' worth in the relay itself.  The delay line holds LINE bytes, which
 * allows 2 GB/s at 30 ms.
 *
 * Two threads a direction, one on either end of the delay line.  The kernel's TCP connections end at the relay, so
 * that a bare TCP connection never waits for a window; what answers itself end to end (a multiplexer's credit) does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE (64u << 20)   /* a power of two: positions wrap */
#define CHUNK (256u << 10) /* bytes read at once */
#define PARTS 65536u       /* chunks in a delay line; a power of two */
#define SECOND 1000000000.0
#define AHEAD 2000000 /* ns: what the link has taken on is at most this far from having passed */
#define BURST 5000000 /* ns: what the link makes up for after a late wake-up: the depth of its bucket */
#define SEGMENT 1448  /* as on Ethernet: the 64 KiB of loopback do not fit small queues */

static int target;
static int64_t delay;
static double rate;
static int queue;

struct part {
	uint64_t end; /* position in the line */
	int64_t leaves;
};

/* A direction.  The reader owns *in*, the writer *out*; both are moved under the lock. */
struct line {
	int from, to;
	char *bytes;
	struct part *parts;
	uint64_t in, out, first, last; /* positions of bytes; numbers of parts */
	int is_ended;                  /* by the reader: nothing more will come; by the writer: nobody wants it */
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...) {
	va_list arguments;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	_exit(1);
}

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void sleep_until(int64_t when) {
	struct timespec t = {.tv_sec = when / 1000000000ll, .tv_nsec = when % 1000000000ll};
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

static struct sockaddr_in loopback(int number) {
	return (struct sockaddr_in){
	    .sin_family = AF_INET, .sin_port = htons(number), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int new_socket(void) {
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), segment = SEGMENT, one = 1;
	if (fd < 0) fail("socket: %s", strerror(errno));
	if (queue) { /* Before the handshake, in which both are agreed upon; inherited by what is accepted. */
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &queue, sizeof queue);
		setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

/* How much the reader may read now into one piece of memory; 0 when nobody wants it any more. */
static size_t wait_for_room(struct line *line) {
	size_t room = 0;
	pthread_mutex_lock(&line->lock);
	while (!line->is_ended && !room) {
		room = line->last - line->first < PARTS ? LINE - (line->in - line->out) : 0;
		if (!room) pthread_cond_wait(&line->changed, &line->lock);
	}
	if (line->is_ended) room = 0;
	pthread_mutex_unlock(&line->lock);
	size_t piece = LINE - line->in % LINE;
	return room < piece ? room : piece;
}

static void put(struct line *line, size_t size, int64_t leaves) {
	pthread_mutex_lock(&line->lock);
	line->in += size;
	line->parts[line->last++ % PARTS] = (struct part){line->in, leaves};
	if (!size) line->is_ended = 1;
	pthread_cond_signal(&line->changed);
	pthread_mutex_unlock(&line->lock);
}

static void *read_line(void *argument) {
	struct line *line = argument;
	int64_t passed = now(); /* when the link has let through all that it has taken on */
	size_t most = CHUNK, room;
	if (rate && rate * AHEAD / SECOND < CHUNK) most = rate * AHEAD / SECOND;
	while ((room = wait_for_room(line))) {
		if (rate) sleep_until(passed - AHEAD);
		ssize_t n = recv(line->from, line->bytes + line->in % LINE, room < most ? room : most, 0);
		if (n < 0 && errno == EINTR) continue;
		int64_t time = now();
		if (rate) {
			if (passed < time - BURST) passed = time - BURST;
			if (n > 0) passed += n / rate * SECOND;
			if (passed > time) time = passed;
		}
		put(line, n > 0 ? n : 0, time + delay);
		if (n <= 0) break;
	}
	return NULL;
}

static int send_until(struct line *line, uint64_t end) {
	while (line->out < end) {
		size_t piece = LINE - line->out % LINE, left = end - line->out;
		ssize_t n = send(line->to, line->bytes + line->out % LINE, left < piece ? left : piece, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) return -1;
		pthread_mutex_lock(&line->lock);
		line->out += n;
		pthread_cond_signal(&line->changed);
		pthread_mutex_unlock(&line->lock);
	}
	return 0;
}

static void *write_line(void *argument) {
	struct line *line = argument;
	for (;;) {
		pthread_mutex_lock(&line->lock);
		while (line->first == line->last) pthread_cond_wait(&line->changed, &line->lock);
		struct part part = line->parts[line->first++ % PARTS];
		pthread_mutex_unlock(&line->lock);
		sleep_until(part.leaves);
		if (part.end == line->out) break; /* the end */
		if (send_until(line, part.end)) {
			pthread_mutex_lock(&line->lock);
			line->is_ended = 1;
			pthread_cond_signal(&line->changed);
			pthread_mutex_unlock(&line->lock);
			shutdown(line->from, SHUT_RD);
			break;
		}
	}
	shutdown(line->to, SHUT_WR);
	return NULL;
}

static void *reserve(size_t size) {
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) fail("no memory");
	return memory;
}

static void *join_both(void *argument) {
	int there = (int)(intptr_t)argument, here = new_socket();
	struct sockaddr_in address = loopback(target);
	struct line lines[2] = {{.from = there, .to = here}, {.from = here, .to = there}};
	pthread_t threads[4];
	if (connect(here, (void *)&address, sizeof address)) fail("connect to %d: %s", target, strerror(errno));
	for (int i = 0; i < 2; i++) {
		lines[i].bytes = reserve(LINE), lines[i].parts = reserve(PARTS * sizeof(struct part));
		pthread_mutex_init(&lines[i].lock, NULL), pthread_cond_init(&lines[i].changed, NULL);
		if (pthread_create(&threads[2 * i], NULL, read_line, &lines[i]) ||
		    pthread_create(&threads[2 * i + 1], NULL, write_line, &lines[i]))
			fail("no thread");
	}
	for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
	for (int i = 0; i < 2; i++) munmap(lines[i].bytes, LINE), munmap(lines[i].parts, PARTS * sizeof(struct part));
	close(there), close(here);
	return NULL;
}

int main(int count, char **words) {
	struct sockaddr_in address = loopback(0);
	socklen_t size = sizeof address;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlives the benchmark */
	prctl(PR_SET_TIMERSLACK, 1);
	if (count != 5) fail("usage: see the head of relay.c");
	target = atoi(words[1]), delay = atof(words[2]) * 1e6, rate = atof(words[3]), queue = atoi(words[4]);
	int listener = new_socket();
	if (bind(listener, (void *)&address, size) || listen(listener, 64)) fail("listen: %s", strerror(errno));
	getsockname(listener, (void *)&address, &size);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	for (;;) {
		pthread_t thread;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0) continue;
		if (pthread_create(&thread, NULL, join_both, (void *)(intptr_t)fd)) fail("no thread");
		pthread_detach(thread);
	}
}
