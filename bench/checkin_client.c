// Devices that send signed requests to their site through a gateway.
//
//   checkin_client -p PORT -f DEVICES -P PREFIX -d SECONDS [-c CONNECTIONS | -n] [-t] [-m REQUESTS] [-s SEED] -k KIND …
//
// DEVICES has a line for each device: client id, token, the private key (P-256) in hex, and the ETag that it was told last,
// which is written there at the end. PREFIX is what stands before the signed part of the URL. A KIND is
// NAME:METHOD:TARGET:RATE[:BODY]; BODY is a file in which @ID becomes a new message id and @AT the time. With RATE 0 each
// connection sends its next request when the last one is answered; otherwise requests begin at that rate each second, and
// their time counts from when they were due. Devices take turns, each kind from its own place. With -c connections are kept
// and shared, with -n each request has one of its own. After -m REQUESTS it ends. With -t each connection is one device's: it sends
// the first KIND again and again, and whenever that is answered with 200, all others in their order.
// Prints JSON: seconds, CPU seconds, and of each kind: answers, errors, 304s and 204s, 200s, p50, p99 and the longest in microseconds.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
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

enum { MOST = 4000000, KINDS = 8, ROOM = 1 << 16, LINE = 4096 };

typedef struct {
  char client[80], etag[80];
  char *token;
  unsigned char key[32];
} Device;

typedef struct {
  char name[32], method[8], target[128];
  double rate, due;
  char *body;
  unsigned *times, answers, errors, unchanged, fine;
  int next, backlog;
} Kind;

typedef struct {
  int socket, busy, shaking, device, kind, got;
  SSL *tls;
  double begun;
  char answer[ROOM];
} Connection;

static Device *devices;
static Kind kinds[KINDS];
static Connection **idle;
static int device_count, kind_count, idle_count, busy_count, poller, fresh, in_turn, port, told, begun_count, most_count;
static SSL_CTX *context;
static const char *prefix = "";
static double ends;
static EC_GROUP *curve;

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

static int base64url(char *to, const unsigned char *from, int length) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  char *start = to;
  for (int i = 0; i < length; i += 3) {
    unsigned v = from[i] << 16 | (i + 1 < length ? from[i + 1] << 8 : 0) | (i + 2 < length ? from[i + 2] : 0);
    *to++ = digits[v >> 18];
    *to++ = digits[v >> 12 & 63];
    if (i + 1 < length) *to++ = digits[v >> 6 & 63];
    if (i + 2 < length) *to++ = digits[v & 63];
  }
  *to = 0;
  return to - start;
}

static void hex(char *to, const unsigned char *from, int length) {
  for (int i = 0; i < length; i++) sprintf(to + 2 * i, "%02x", from[i]);
}

static void sign(Device *device, const char *text, char *to) {
  EC_KEY *key = EC_KEY_new();
  EC_KEY_set_group(key, curve);
  BIGNUM *secret = BN_bin2bn(device->key, 32, NULL);
  EC_KEY_set_private_key(key, secret);
  unsigned char digest[32], raw[64];
  SHA256((const unsigned char *)text, strlen(text), digest);
  ECDSA_SIG *made = ECDSA_do_sign(digest, 32, key);
  if (!made) die("signature");
  BN_bn2binpad(ECDSA_SIG_get0_r(made), raw, 32);
  BN_bn2binpad(ECDSA_SIG_get0_s(made), raw + 32, 32);
  ECDSA_SIG_free(made);
  BN_clear_free(secret);
  EC_KEY_free(key);
  base64url(to, raw, 64);
}

static void replace(char *text, const char *mark, const char *by) {
  for (char *at; (at = strstr(text, mark));) {
    char rest[ROOM];
    snprintf(rest, sizeof rest, "%s", at + strlen(mark));
    sprintf(at, "%s%s", by, rest);
  }
}

static void send_request(Connection *c) {
  Kind *kind = &kinds[c->kind];
  Device *device = &devices[c->device];
  char date[32], nonce[40], digest[65], lines[LINE], signature[96], request[ROOM], body[ROOM] = "", condition[128] = "";
  time_t at = time(0);
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&at));
  unsigned char random[24], hash[32];
  RAND_bytes(random, sizeof random);
  base64url(nonce, random, sizeof random);
  if (kind->body) {
    char id[49];
    hex(id, random, 16);
    snprintf(body, sizeof body, "%s", kind->body);
    replace(body, "@ID", id);
    replace(body, "@AT", date);
  }
  SHA256((unsigned char *)body, strlen(body), hash);
  hex(digest, hash, 32);
  snprintf(lines, sizeof lines, "%s\n%s\n%s\n%s\n%s\n%s", kind->method, kind->target, digest, device->client, date, nonce);
  sign(device, lines, signature);
  if (!kind->body && device->etag[0]) snprintf(condition, sizeof condition, "If-None-Match: %s\r\n", device->etag);
  int size = snprintf(request, sizeof request,
                      "%s %s%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nCCM-Client: %s\r\nCCM-Date: %s\r\n"
                      "CCM-Nonce: %s\r\nCCM-Signature: %s\r\n%s",
                      kind->method, prefix, kind->target, device->token, device->client, date, nonce, signature, condition);
  if (kind->body) size += snprintf(request + size, sizeof request - size, "Content-Length: %zu\r\n", strlen(body));
  size += snprintf(request + size, sizeof request - size, "\r\n%s", body);
  c->got = 0;
  if (SSL_write(c->tls, request, size) <= 0) die("write");
}

static void open_connection(Connection *c) {
  c->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  int one = 1;
  setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_aton("127.0.0.1", &there.sin_addr);
  if (connect(c->socket, (void *)&there, sizeof there) != 0 && errno != EINPROGRESS) die("connect");
  c->tls = SSL_new(context);
  SSL_set_fd(c->tls, c->socket);
  SSL_set_tlsext_host_name(c->tls, "localhost");
  SSL_set_connect_state(c->tls);
  c->shaking = 1;
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_ADD, c->socket, &event);
}

static void begin(Connection *c, int which, double due) {
  Kind *kind = &kinds[which];
  c->kind = which;
  if (!in_turn || !c->begun) {
    c->device = kind->next;
    kind->next = (kind->next + 1) % device_count;
  }
  c->begun = due;
  c->busy = 1;
  busy_count++;
  begun_count++;
  if (fresh)
    open_connection(c);
  else
    send_request(c);
}

static void over(Connection *c) {
  Kind *kind = &kinds[c->kind];
  int status = atoi(c->answer + 9);
  if (kind->answers < MOST) kind->times[kind->answers] = (unsigned)((now() - c->begun) * 1e6);
  kind->answers++;
  if (status == 304 || status == 204) kind->unchanged++;
  else if (status == 200) kind->fine++;
  else if (kind->errors++ < 3 && told++ < 6) fprintf(stderr, "%s: %.400s\n", kind->name, c->answer);
  char *etag = strcasestr(c->answer, "\r\netag: ");
  if (etag && status < 400) sscanf(etag + 8, "%79[^\r]", devices[c->device].etag);
  c->busy = 0;
  busy_count--;
  if (fresh) {
    SSL_shutdown(c->tls);
    SSL_free(c->tls);
    close(c->socket);
    idle[idle_count++] = c;
  } else if (in_turn) {
    int next = c->kind || status == 200 ? (c->kind + 1) % kind_count : 0;
    if (next || now() < ends) begin(c, next, now());
    else idle[idle_count++] = c;
  } else if (kind->rate == 0 && now() < ends && (!most_count || begun_count < most_count)) {
    begin(c, c->kind, now());
  } else {
    idle[idle_count++] = c;
  }
}

static void lost(Connection *c, const char *what) {
  if (!fresh || !c->busy) die(what);
  c->shaking = 0;
  snprintf(c->answer, ROOM, "HTTP/1.1 000 %s", what);
  over(c);
}

static void ready(Connection *c) {
  if (c->shaking) {
    int n = SSL_do_handshake(c->tls);
    if (n != 1) {
      int why = SSL_get_error(c->tls, n);
      if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return;
      lost(c, "handshake");
      return;
    }
    c->shaking = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->socket, &event);
    if (c->busy) send_request(c);
    else idle[idle_count++] = c;
    return;
  }
  for (;;) {
    int n = SSL_read(c->tls, c->answer + c->got, ROOM - 1 - c->got);
    if (n <= 0) {
      if (SSL_get_error(c->tls, n) == SSL_ERROR_WANT_READ) return;
      lost(c, "the connection is gone");
      return;
    }
    c->got += n;
    c->answer[c->got] = 0;
    if (!c->busy) continue;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) continue;
    int status = atoi(c->answer + 9);
    if (status != 304 && status != 204) {
      char *length = strcasestr(c->answer, "\r\ncontent-length:");
      if (!length || length > end) die("an answer has no Content-Length");
      if (c->got < end + 4 - c->answer + atol(length + 17)) continue;
    }
    over(c);
    return;
  }
}

static void read_devices(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) die(path);
  static char line[LINE], token[LINE], key[80];
  int room = 0;
  while (fgets(line, sizeof line, file)) {
    if (device_count == room) devices = realloc(devices, (room = room ? 2 * room : 1024) * sizeof *devices);
    Device *device = &devices[device_count++];
    memset(device, 0, sizeof *device);
    if (sscanf(line, "%79s %4095s %79s %79s", device->client, token, key, device->etag) < 3) die("a line of devices");
    device->token = strdup(token);
    for (int i = 0; i < 32; i++) sscanf(key + 2 * i, "%2hhx", &device->key[i]);
  }
  fclose(file);
}

static void write_devices(const char *path) {
  FILE *file = fopen(path, "w");
  if (!file) die(path);
  for (int i = 0; i < device_count; i++) {
    char key[65];
    hex(key, devices[i].key, 32);
    fprintf(file, "%s %s %s %s\n", devices[i].client, devices[i].token, key, devices[i].etag);
  }
  fclose(file);
}

static void read_kind(char *text) {
  Kind *kind = &kinds[kind_count++];
  char path[LINE] = "", *part = strdup(text);
  snprintf(kind->name, sizeof kind->name, "%s", strsep(&part, ":"));
  snprintf(kind->method, sizeof kind->method, "%s", strsep(&part, ":"));
  snprintf(kind->target, sizeof kind->target, "%s", strsep(&part, ":"));
  kind->rate = atof(strsep(&part, ":"));
  if (part) snprintf(path, sizeof path, "%s", part);
  kind->times = malloc(MOST * sizeof *kind->times);
  if (!path[0]) return;
  FILE *file = fopen(path, "r");
  if (!file) die(path);
  kind->body = calloc(1, ROOM);
  if (!fread(kind->body, 1, ROOM / 2, file)) die(path);
  fclose(file);
}

static int compare(const void *a, const void *b) {
  unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
  return x < y ? -1 : x > y;
}

int main(int count, char **words) {
  const char *file = "";
  int connections = 8, option, seed = 0;
  double seconds = 5;
  while ((option = getopt(count, words, "p:f:P:d:c:ntm:s:k:")) > 0) {
    if (option == 'p') port = atoi(optarg);
    if (option == 'f') file = optarg;
    if (option == 'P') prefix = optarg;
    if (option == 'd') seconds = atof(optarg);
    if (option == 'c') connections = atoi(optarg);
    if (option == 'n') fresh = 1;
    if (option == 't') in_turn = 1;
    if (option == 'm') most_count = atoi(optarg);
    if (option == 's') seed = atoi(optarg);
    if (option == 'k') read_kind(optarg);
  }
  signal(SIGPIPE, SIG_IGN);
  read_devices(file);
  curve = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
  context = SSL_CTX_new(TLS_client_method());
  poller = epoll_create1(0);
  if (fresh) connections = 2000;
  idle = calloc(connections, sizeof *idle);
  Connection *all = calloc(connections, sizeof *all);
  struct epoll_event events[256];
  for (int i = 0; i < connections; i++) {
    if (fresh) idle[idle_count++] = &all[i];
    else open_connection(&all[i]);
  }
  while (idle_count < connections) {
    int n = epoll_wait(poller, events, 256, 10000);
    if (n <= 0) die("handshakes");
    for (int i = 0; i < n; i++) ready(events[i].data.ptr);
  }
  double begun = now();
  ends = begun + seconds;
  for (int i = 0; i < kind_count; i++) {
    kinds[i].next = (seed + i * (device_count / KINDS)) % device_count;
    kinds[i].due = begun + (kinds[i].rate ? (i + 1) * 0.37 / kinds[i].rate : 0);
  }
  if (kinds[0].rate == 0)
    while (idle_count) begin(idle[--idle_count], 0, now());
  for (;;) {
    double t = now();
    for (int i = 0; i < kind_count; i++)
      while (kinds[i].rate && idle_count && kinds[i].due <= t && kinds[i].due < ends) {
        begin(idle[--idle_count], i, kinds[i].due);  // What waits for a connection waits, too.
        kinds[i].due += 1 / kinds[i].rate;
      }
    if ((t >= ends && !busy_count) || t > ends + 20) break;
    if (most_count && begun_count >= most_count && !busy_count) break;
    int n = epoll_wait(poller, events, 256, kinds[0].rate ? 1 : 100);
    for (int i = 0; i < n; i++) ready(events[i].data.ptr);
  }
  double took = now() - begun;
  write_devices(file);
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  printf("{\"secs\":%.4f,\"lost\":%d,\"cpu\":%.4f,\"kinds\":{", took, busy_count,
         used.ru_utime.tv_sec + used.ru_stime.tv_sec + 1e-6 * (used.ru_utime.tv_usec + used.ru_stime.tv_usec));
  for (int i = 0; i < kind_count; i++) {
    Kind *k = &kinds[i];
    unsigned kept = k->answers < MOST ? k->answers : MOST;
    qsort(k->times, kept, sizeof *k->times, compare);
    printf("%s\"%s\":{\"n\":%u,\"err\":%u,\"unchanged\":%u,\"ok\":%u,\"p50\":%u,\"p99\":%u,\"most\":%u}", i ? "," : "", k->name,
           k->answers, k->errors, k->unchanged, k->fine, kept ? k->times[kept / 2] : 0,
           kept ? k->times[(size_t)(kept * .99)] : 0, kept ? k->times[kept - 1] : 0);
  }
  printf("}}\n");
  return 0;
}
