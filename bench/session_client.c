// Devices that hold management sessions: one kept TLS connection each, with a certificate of its own.
//
//   session_client -p PORT -D FOLDER -n DEVICES -d SECONDS [-r SESSIONS_PER_SECOND]
//
// FOLDER holds, for device i from 0: i.pem (certificate and key) and i.1, i.2, … (whole HTTP requests). A session is
// those requests in their order, each sent when the one before is answered with 200. "@SESSION" in a request is replaced
// by eight hexadecimal digits, another value for each session. With -r sessions begin at that rate, each on the device that
// has waited longest; without it each device begins its next session when the last one is over.
// Prints JSON: sessions, errors, seconds, p50 and p99 of a whole session in microseconds, seconds of handshakes, CPU seconds.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 16, MOST = 4000000 };

typedef struct {
  char *text, *mark;
  size_t length;
} Request;

typedef struct {
  int number, socket, step, steps, busy;
  SSL *tls;
  Request requests[STEPS];
  char *answer;
  size_t got, room;
  double begun;
} Device;

static Device *devices, **waiting;
static int device_count, waiting_first, waiting_count, poller, errors;
static unsigned *latencies, sessions;
static unsigned counter;
static double ends;
static int paced;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  ERR_print_errors_fp(stderr);
  exit(2);
}

static int read_request(Device *device, const char *folder, int step) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%d.%d", folder, device->number, step + 1);
  FILE *file = fopen(path, "rb");
  if (!file) return 0;
  Request *request = &device->requests[step];
  request->text = malloc(1 << 20);
  request->length = fread(request->text, 1, (1 << 20) - 1, file);
  request->text[request->length] = 0;
  fclose(file);
  request->mark = strstr(request->text, "@SESSION");
  return 1;
}

static void wait_in_line(Device *device) {
  device->busy = 0;
  waiting[(waiting_first + waiting_count++) % device_count] = device;
}

static void send_step(Device *device, unsigned session) {
  Request *request = &device->requests[device->step];
  if (request->mark) {
    char digits[9];
    snprintf(digits, sizeof digits, "%08x", session);
    memcpy(request->mark, digits, 8);
  }
  device->got = 0;
  // Requests are small and the answer to the one before was read: the socket takes it whole.
  if (SSL_write(device->tls, request->text, request->length) <= 0) die("write");
}

static void begin(Device *device) {
  device->busy = 1;
  device->step = 0;
  device->begun = now();
  counter++;
  send_step(device, counter);
}

static unsigned session_of(Device *device) {
  unsigned value = 0;
  if (device->requests[0].mark) sscanf(device->requests[0].mark, "%8x", &value);
  return value;
}

static void answered(Device *device) {
  if (strncmp(device->answer + 9, "200", 3) != 0) {
    if (errors++ < 3) fprintf(stderr, "%.300s\n", device->answer);
    device->step = device->steps - 1;
  }
  if (++device->step < device->steps) {
    send_step(device, session_of(device));
    return;
  }
  if (sessions < MOST) latencies[sessions] = (unsigned)((now() - device->begun) * 1e6);
  sessions++;
  if (!paced && now() < ends)
    begin(device);
  else
    wait_in_line(device);
}

static void readable(Device *device) {
  for (;;) {
    if (device->room - device->got < 65536) device->answer = realloc(device->answer, device->room += 1 << 17);
    int n = SSL_read(device->tls, device->answer + device->got, device->room - device->got - 1);
    if (n <= 0) {
      if (SSL_get_error(device->tls, n) == SSL_ERROR_WANT_READ) return;
      die("the connection is gone");
    }
    device->got += n;
    device->answer[device->got] = 0;
    char *end = strstr(device->answer, "\r\n\r\n");
    if (!end) continue;
    char *length = strcasestr(device->answer, "\r\ncontent-length:");
    if (!length || length > end) die("an answer has no Content-Length");
    if (device->got < (size_t)(end + 4 - device->answer) + atol(length + 17)) continue;
    answered(device);
    return;
  }
}

static void open_device(Device *device, const char *folder, int port) {
  char path[4096];
  SSL_CTX *context = SSL_CTX_new(TLS_client_method());
  snprintf(path, sizeof path, "%s/%d.pem", folder, device->number);
  if (SSL_CTX_use_certificate_chain_file(context, path) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) != 1)
    die(path);
  device->socket = socket(AF_INET, SOCK_STREAM, 0);
  int one = 1;
  setsockopt(device->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_aton("127.0.0.1", &there.sin_addr);
  if (connect(device->socket, (void *)&there, sizeof there) != 0) die("connect");
  device->tls = SSL_new(context);
  SSL_CTX_free(context);
  SSL_set_fd(device->tls, device->socket);
  SSL_set_tlsext_host_name(device->tls, "localhost");
  if (SSL_connect(device->tls) != 1) die("handshake");
  fcntl(device->socket, F_SETFL, fcntl(device->socket, F_GETFL) | O_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = device};
  epoll_ctl(poller, EPOLL_CTL_ADD, device->socket, &event);
}

static int compare(const void *a, const void *b) {
  unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
  return x < y ? -1 : x > y;
}

int main(int count, char **words) {
  const char *folder = ".";
  int port = 443, option;
  double seconds = 5, rate = 0;
  while ((option = getopt(count, words, "p:D:n:d:r:")) > 0) {
    if (option == 'p') port = atoi(optarg);
    if (option == 'D') folder = optarg;
    if (option == 'n') device_count = atoi(optarg);
    if (option == 'd') seconds = atof(optarg);
    if (option == 'r') rate = atof(optarg);
  }
  signal(SIGPIPE, SIG_IGN);
  paced = rate > 0;
  poller = epoll_create1(0);
  devices = calloc(device_count, sizeof *devices);
  waiting = calloc(device_count, sizeof *waiting);
  latencies = malloc(MOST * sizeof *latencies);
  // Another run of this program does not repeat a session of the last one.
  counter = (unsigned)time(0) << 12;
  double opening = now();
  for (int i = 0; i < device_count; i++) {
    Device *device = &devices[i];
    device->number = i;
    while (device->steps < STEPS && read_request(device, folder, device->steps)) device->steps++;
    open_device(device, folder, port);
    wait_in_line(device);
  }
  double begun = now(), handshakes = begun - opening, due = begun;
  ends = begun + seconds;
  if (!paced) {
    waiting_count = 0;
    for (int i = 0; i < device_count; i++) begin(&devices[i]);
  }
  struct epoll_event events[256];
  for (;;) {
    double t = now();
    while (paced && waiting_count && due <= t && due < ends) {
      Device *device = waiting[waiting_first];
      waiting_first = (waiting_first + 1) % device_count;
      waiting_count--;
      begin(device);
      device->begun = due;  // What waits for a free device waits, too.
      due += 1 / rate;
    }
    if (t >= ends && waiting_count == device_count) break;
    if (t > ends + 20) break;
    int n = epoll_wait(poller, events, 256, paced ? 1 : 100);
    for (int i = 0; i < n; i++) readable(events[i].data.ptr);
  }
  double took = now() - begun;
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  unsigned kept = sessions < MOST ? sessions : MOST;
  qsort(latencies, kept, sizeof *latencies, compare);
  printf("{\"n\":%u,\"err\":%d,\"secs\":%.4f,\"p50\":%u,\"p99\":%u,\"handshake_secs\":%.4f,\"cpu\":%.4f}\n", sessions,
         errors, took, kept ? latencies[kept / 2] : 0, kept ? latencies[(size_t)(kept * .99)] : 0, handshakes,
         used.ru_utime.tv_sec + used.ru_stime.tv_sec + 1e-6 * (used.ru_utime.tv_usec + used.ru_stime.tv_usec));
  return 0;
}
