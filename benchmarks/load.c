/* load - the origin and the load generator of otun's benchmarks.  It never talks to anything but 127.0.0.1.
 *
 *   load origin                                       an HTTP/1.1 origin on a free port, which it prints
 *       GET /down/N   N bytes of the pattern          POST /up   checks that the body is the pattern
 *       GET /echo     101, then echoes every byte     otherwise  200 and "hi"
 *   load down PORT LIMIT CONNECTIONS BYTES            downloads BYTES over each, checked; prints MB/s together
 *   load up PORT LIMIT CONNECTIONS BYTES              the same, upwards; ends when the origin has confirmed them
 *   load connect PORT LIMIT CONCURRENT SECONDS        connect, GET /, read, close; prints connections/s
 *   load hold PORT LIMIT VISITORS request|echo        opens them one by one, each proven by a request or an echoed
 *                                                     byte; prints "open N", waits for a line, prints "alive N"
 *   load stall PORT LIMIT BYTES                       reads the start of a download and stops; prints "stalled",
 *                                                     waits for a line, reads and checks the rest, prints "complete"
 *
 * LIMIT is in seconds: what has not ended by then is ended by SIGALRM.  Threads and blocking sockets, since what is
 * measured is the tunnel; the bytes are a pattern with a prime period, so that lost or swapped ones show.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PERIOD 251
#define CHUNK (256 * 1024)
#define HEAD 8192
#define STACK (64 * 1024)

static char pattern[CHUNK + PERIOD];
static int port;

__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...) {
	va_list arguments;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	_exit(1);
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static struct sockaddr_in loopback(int number) {
	return (struct sockaddr_in){
	    .sin_family = AF_INET, .sin_port = htons(number), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void send_at_once(int fd) {
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int dial(void) {
	struct sockaddr_in address = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (void *)&address, sizeof address) < 0) fail("connect: %s", strerror(errno));
	send_at_once(fd);
	return fd;
}

/* The following return 0, or -1 when the connection ended or broke. */

static int send_all(int fd, const char *data, size_t left) {
	while (left) {
		ssize_t n = send(fd, data, left, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) return -1;
		data += n, left -= n;
	}
	return 0;
}

__attribute__((format(printf, 2, 3))) static int say(int fd, const char *format, ...) {
	char text[512];
	va_list arguments;
	va_start(arguments, format);
	int n = vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	return send_all(fd, text, n);
}

/* Read one head and nothing behind it: look first, then take what belongs to it. */
static int read_head(int fd, char *head) {
	size_t have = 0;
	while (have < HEAD - 1) {
		ssize_t n = recv(fd, head + have, HEAD - 1 - have, MSG_PEEK);
		if (n <= 0) return -1;
		head[have + n] = 0;
		char *end = strstr(have > 3 ? head + have - 3 : head, "\r\n\r\n");
		if (end) n = end + 4 - (head + have), end[4] = 0;
		if (recv(fd, head + have, n, 0) != n) return -1;
		have += n;
		if (end) return 0;
	}
	return -1;
}

static int64_t content_length(const char *head) {
	const char *field = strcasestr(head, "\r\ncontent-length:");
	return field ? strtoll(field + 17, NULL, 10) : -1;
}

static int send_pattern(int fd, uint64_t bytes) {
	for (uint64_t at = 0; at < bytes;) {
		uint64_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
		if (send_all(fd, pattern + at % PERIOD, n)) return -1;
		at += n;
	}
	return 0;
}

/* Read *bytes* that continue the pattern from *at*; 1 when they differ from it. */
static int check_pattern(int fd, uint64_t at, uint64_t bytes) {
	char *buffer = malloc(CHUNK);
	int verdict = 0;
	for (uint64_t end = at + bytes; at < end;) {
		ssize_t n = recv(fd, buffer, end - at < CHUNK ? end - at : CHUNK, 0);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) {
			verdict = -1;
			break;
		}
		if (memcmp(buffer, pattern + at % PERIOD, n)) verdict = 1;
		at += n;
	}
	free(buffer);
	return verdict;
}

/* ---- origin */

static int echo(int fd) {
	char buffer[4096];
	ssize_t n;
	if (say(fd, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")) return -1;
	while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
		if (send_all(fd, buffer, n)) break;
	return -1;
}

static int answer(int fd, const char *request) {
	if (!strncmp(request, "GET /down/", 10)) {
		uint64_t bytes = strtoull(request + 10, NULL, 10);
		if (say(fd, "HTTP/1.1 200 OK\r\nContent-Length: %" PRIu64 "\r\n\r\n", bytes)) return -1;
		return send_pattern(fd, bytes);
	}
	if (!strncmp(request, "POST /up ", 9)) {
		int64_t bytes = content_length(request);
		int verdict = bytes < 0 ? 1 : check_pattern(fd, 0, bytes);
		if (verdict < 0) return -1;
		return say(fd, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", verdict ? "400 Other Bytes" : "200 OK");
	}
	if (!strncmp(request, "GET /echo ", 10)) return echo(fd);
	return say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
}

static void *serve_connection(void *argument) {
	int fd = (int)(intptr_t)argument;
	char request[HEAD];
	send_at_once(fd);
	while (!read_head(fd, request) && !answer(fd, request)) {}
	close(fd);
	return NULL;
}

static _Noreturn void origin(void) {
	struct sockaddr_in address = loopback(0);
	socklen_t size = sizeof address;
	pthread_attr_t small;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (void *)&address, size) || listen(listener, 4096)) fail("listen: %s", strerror(errno));
	getsockname(listener, (void *)&address, &size);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK);
	pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	for (;;) {
		pthread_t thread;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0) continue;
		if (pthread_create(&thread, &small, serve_connection, (void *)(intptr_t)fd)) close(fd);
	}
}

/* ---- load */

static uint64_t bytes_each;
static double stop_at;

#define DOWNLOAD "GET /down/%" PRIu64 " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
#define UPLOAD "POST /up HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %" PRIu64 "\r\n\r\n"
#define ONCE "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
#define AGAIN "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
#define ECHO "GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"

static void expect(int fd, const char *status, char *head) {
	if (read_head(fd, head)) fail("the connection ended before the response head");
	if (strncmp(head + 9, status, 3)) fail("answered with %.*s", (int)strcspn(head, "\r"), head);
}

static void *download(void *unused) {
	char head[HEAD];
	int fd = dial();
	if (say(fd, DOWNLOAD, bytes_each)) fail("sending the request failed");
	expect(fd, "200", head);
	int verdict = check_pattern(fd, 0, bytes_each);
	if (verdict) fail(verdict > 0 ? "other bytes arrived" : "the download ended early");
	close(fd);
	return unused;
}

static void *upload(void *unused) {
	char head[HEAD];
	int fd = dial();
	if (say(fd, UPLOAD, bytes_each) || send_pattern(fd, bytes_each)) fail("the upload was cut off");
	expect(fd, "200", head);
	close(fd);
	return unused;
}

static void *connect_again_and_again(void *count) {
	char head[HEAD];
	while (now() < stop_at) {
		int fd = dial();
		if (say(fd, ONCE)) fail("sending the request failed");
		expect(fd, "200", head);
		for (int64_t left = content_length(head); left;) {
			ssize_t n = left > 0 ? recv(fd, head, left < HEAD ? left : HEAD, 0) : 0;
			if (n <= 0) fail("the response ended early");
			left -= n;
		}
		close(fd);
		++*(long *)count;
	}
	return NULL;
}

/* Run *work* in so many threads; the sum of what each counted. */
static long together(int threads, void *(*work)(void *)) {
	pthread_t *ids = calloc(threads, sizeof *ids);
	long *counts = calloc(threads * 8, sizeof *counts), sum = 0; /* eight apart: one cache line each */
	for (int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL, work, &counts[i * 8])) fail("no thread");
	for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL), sum += counts[i * 8];
	return sum;
}

static void wait_for_line(void) {
	while (getchar() > '\n') {}
}

static int visit(int is_echo) {
	char head[HEAD];
	int fd = dial();
	if (is_echo ? say(fd, ECHO) : say(fd, AGAIN)) fail("sending the request failed");
	expect(fd, is_echo ? "101" : "200", head);
	if (is_echo && say(fd, "hi")) fail("sending failed");
	if (recv(fd, head, 2, MSG_WAITALL) != 2 || memcmp(head, "hi", 2)) fail("a visitor was not answered");
	return fd;
}

static void hold(int visitors, int is_echo) {
	int *fds = calloc(visitors, sizeof *fds), alive = 0;
	char byte;
	for (int i = 0; i < visitors; i++) fds[i] = visit(is_echo);
	printf("open %d\n", visitors), fflush(stdout);
	wait_for_line();
	for (int i = 0; i < visitors; i++) alive += recv(fds[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
	printf("alive %d\n", alive);
}

static void stall(uint64_t bytes) {
	char head[HEAD];
	int fd = dial();
	if (say(fd, DOWNLOAD, bytes)) fail("sending the request failed");
	expect(fd, "200", head);
	if (check_pattern(fd, 0, 1000)) fail("the first bytes did not arrive");
	printf("stalled\n"), fflush(stdout);
	wait_for_line();
	if (check_pattern(fd, 1000, bytes - 1000)) fail("the rest did not arrive as it was sent");
	printf("complete\n");
}

int main(int count, char **words) {
	const char *what = count > 1 ? words[1] : "";
	for (int i = 0; i < CHUNK + PERIOD; i++) pattern[i] = i % PERIOD * 7 + 3;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlives the benchmark */
	if (count == 2 && !strcmp(what, "origin")) origin();
	if (count < 5) fail("usage: see the head of load.c");
	port = atoi(words[2]);
	alarm(atoi(words[3])); /* unhandled, so it ends the program */
	int number = atoi(words[4]);
	double start = now();
	if (count == 6 && (!strcmp(what, "down") || !strcmp(what, "up"))) {
		bytes_each = strtoull(words[5], NULL, 10);
		together(number, *what == 'd' ? download : upload);
		printf("%.3f\n", bytes_each * number / 1e6 / (now() - start));
	} else if (count == 6 && !strcmp(what, "connect")) {
		stop_at = start + atof(words[5]);
		long made = together(number, connect_again_and_again);
		printf("%.3f\n", made / (now() - start));
	} else if (count == 6 && !strcmp(what, "hold")) {
		hold(number, !strcmp(words[5], "echo"));
	} else if (count == 5 && !strcmp(what, "stall")) {
		stall(strtoull(words[4], NULL, 10));
	} else {
		fail("usage: see the head of load.c");
	}
	return 0;
}
