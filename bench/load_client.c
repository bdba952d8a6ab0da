// A single-threaded epoll HTTP/HTTPS load client that can present client certificates.
// modes: ka keepalive requests | hs new TCP+TLS handshake per request | idle open N, one request each, hold until stdin EOF | dl download
// | storm open N at once, again where that fails, until each was served | mute open N that never send, hold until stdin EOF
// -q R: ka at R requests a second, whatever comes of them; latency counts from when each was due
#define _GNU_SOURCE
#include <openssl/ssl.h>
#include <openssl/err.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/resource.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <unistd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <time.h>
#include <signal.h>
#define MAXLAT 4000000
typedef struct { int fd; SSL*ssl; int st; /*0 off 1 connecting 2 hs 3 sending 4 reading 5 idle*/ size_t off; char hb[8192]; size_t hl; long long left; double t0; int ip; SSL_SESSION*sess;} C;
static SSL_CTX*ctx; static char*req; static size_t reql; static int ep,port,tls,resume,mode; static C*cs; static int nc;
static unsigned*lat; static size_t nlat,nerr,nreq,nhs,nres; static unsigned long long bytes; static double tend; static int nidle; static size_t nref,nagain; static double rate; static C**freec; static int nfree;
static char big[1<<18];
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+t.tv_nsec*1e-9;}
static void ev(C*c,int op,unsigned e){struct epoll_event x={.events=e,.data.ptr=c};epoll_ctl(ep,op,c->fd,&x);}
static void step(C*c);
static void drop(C*c){ if(c->ssl){ if(resume){SSL_SESSION*s=SSL_get1_session(c->ssl); if(c->sess)SSL_SESSION_free(c->sess); c->sess=s;} SSL_set_quiet_shutdown(c->ssl,1);SSL_shutdown(c->ssl);SSL_free(c->ssl);c->ssl=0;} close(c->fd); c->st=0;}
static void start(C*c){
  c->fd=socket(AF_INET,SOCK_STREAM|SOCK_NONBLOCK,0); int one=1; setsockopt(c->fd,IPPROTO_TCP,TCP_NODELAY,&one,4);
  setsockopt(c->fd,IPPROTO_IP,24/*IP_BIND_ADDRESS_NO_PORT*/,&one,4);
  struct sockaddr_in s={.sin_family=AF_INET}; char ip[32]; sprintf(ip,"127.0.0.%d",2+(c->ip++)%40); inet_aton(ip,&s.sin_addr); bind(c->fd,(void*)&s,sizeof s);
  struct sockaddr_in a={.sin_family=AF_INET,.sin_port=htons(port)}; inet_aton("127.0.0.1",&a.sin_addr);
  c->t0=now(); c->off=0;c->hl=0;c->left=-1;
  if(connect(c->fd,(void*)&a,sizeof a)<0&&errno!=EINPROGRESS){nerr++;close(c->fd);c->st=0;if(mode==4){nerr--;nagain++;c->st=7;c->t0=now()+.5;}return;}
  c->st=1; ev(c,EPOLL_CTL_ADD,EPOLLOUT);
}
static void fail(C*c,const char*w){ nerr++; if(nerr<4&&mode!=4){fprintf(stderr,"err %s st=%d errno=%d ",w,c->st,errno);ERR_print_errors_fp(stderr);fputc('\n',stderr);} drop(c); if(mode==4){nagain++;nerr--;c->st=7;c->t0=now()+.5+(rand()%1000)/2000.;return;} if(now()<tend&&nerr<2000&&mode!=2)start(c);}
static int rd(C*c,char*b,int n){ // >0, 0 eof, -1 again, -2 err
  if(c->ssl){int r=SSL_read(c->ssl,b,n); if(r>0)return r; int e=SSL_get_error(c->ssl,r); if(e==SSL_ERROR_WANT_READ){return -1;} if(e==SSL_ERROR_WANT_WRITE){return -1;} if(e==SSL_ERROR_ZERO_RETURN)return 0; return -2;}
  int r=read(c->fd,b,n); if(r>=0)return r; return errno==EAGAIN?-1:-2;}
static void park(C*c){c->st=6;freec[nfree++]=c;ev(c,EPOLL_CTL_MOD,EPOLLIN);}
static void done(C*c){
  double t=now(); if(nlat<MAXLAT)lat[nlat++]=(unsigned)((t-c->t0)*1e6); nreq++;
  c->hl=0;c->left=-1;c->off=0;
  if(mode==2||mode==4){c->st=5;nidle++;ev(c,EPOLL_CTL_MOD,EPOLLIN);return;}
  if(mode==1){drop(c); if(t<tend)start(c); return;}
  if(t>=tend){drop(c);return;}
  if(rate){park(c);return;}
  c->t0=t;c->st=3;step(c);}
static void step(C*c){
  ERR_clear_error();
  if(c->st==1){int e=0;socklen_t l=4;getsockopt(c->fd,SOL_SOCKET,SO_ERROR,&e,&l); if(e){errno=e;fail(c,"connect");return;}
    if(mode==5){c->st=5;nidle++;ev(c,EPOLL_CTL_MOD,EPOLLIN);return;}
    if(tls){c->ssl=SSL_new(ctx);SSL_set_fd(c->ssl,c->fd);SSL_set_connect_state(c->ssl);SSL_set_tlsext_host_name(c->ssl,"localhost");if(resume&&c->sess)SSL_set_session(c->ssl,c->sess);c->st=2;} else c->st=3;}
  if(c->st==2){int r=SSL_do_handshake(c->ssl); if(r==1){nhs++;if(SSL_session_reused(c->ssl))nres++;c->st=3;if(rate){park(c);return;}} else {int e=SSL_get_error(c->ssl,r); if(e==SSL_ERROR_WANT_READ){ev(c,EPOLL_CTL_MOD,EPOLLIN);return;} if(e==SSL_ERROR_WANT_WRITE){ev(c,EPOLL_CTL_MOD,EPOLLOUT);return;} fail(c,"hs");return;}}
  if(c->st==3){ while(c->off<reql){int r; if(c->ssl){r=SSL_write(c->ssl,req+c->off,reql-c->off); if(r<=0){int e=SSL_get_error(c->ssl,r); if(e==SSL_ERROR_WANT_WRITE){ev(c,EPOLL_CTL_MOD,EPOLLOUT);return;} if(e==SSL_ERROR_WANT_READ){ev(c,EPOLL_CTL_MOD,EPOLLIN);return;} fail(c,"write");return;}}
      else {r=write(c->fd,req+c->off,reql-c->off); if(r<0){if(errno==EAGAIN){ev(c,EPOLL_CTL_MOD,EPOLLOUT);return;}fail(c,"write");return;}} c->off+=r;}
    c->st=4; ev(c,EPOLL_CTL_MOD,EPOLLIN); return;}
  if(c->st==6){ int r=rd(c,big,sizeof big); if(r==-1)return; for(int i=0;i<nfree;i++)if(freec[i]==c){freec[i]=freec[--nfree];break;} drop(c); if(now()<tend)start(c); return;}
  if(c->st==5){ int r=rd(c,big,sizeof big); if(r==-1)return; nerr++;nidle--;drop(c);return;}
  if(c->st==4) for(;;){
    if(c->left<0){ int r=rd(c,c->hb+c->hl,sizeof c->hb-1-c->hl); if(r==-1)return; if(r<=0){fail(c,"read");return;} bytes+=r;c->hl+=r;c->hb[c->hl]=0;
      char*e=strstr(c->hb,"\r\n\r\n"); if(!e){if(c->hl>=sizeof c->hb-1){fail(c,"hdr");return;}continue;}
      int code=atoi(c->hb+9); if(code!=200&&code!=304&&code!=206){ if(nerr<3)fprintf(stderr,"%.200s\n",c->hb); nref++; fail(c,"status");return;}
      char*p=strcasestr(c->hb,"\r\ncontent-length:"); long long cl=code==304?0:-1; if(p&&p<e&&code!=304)cl=atoll(p+17);
      if(cl<0){fail(c,"nolen");return;} c->left=cl-(long long)(c->hl-(e+4-c->hb)); if(c->left==0){done(c);return;} if(c->left<0){fail(c,"over");return;} }
    else { int r=rd(c,big,sizeof big); if(r==-1)return; if(r<=0){fail(c,"read2");return;} bytes+=r; c->left-=r; if(c->left==0){done(c);return;} if(mode==3&&0)return; }
  }}
static int cmp(const void*a,const void*b){unsigned x=*(unsigned*)a,y=*(unsigned*)b;return x<y?-1:x>y;}
int main(int ac,char**av){
  int o; double dur=5; char*rf=0,*cert=0,*key=0; nc=64; signal(SIGPIPE,SIG_IGN);
  while((o=getopt(ac,av,"m:p:sc:d:r:C:K:Rq:"))>0)switch(o){case'm':mode=!strcmp(optarg,"hs")?1:!strcmp(optarg,"idle")?2:!strcmp(optarg,"dl")?3:!strcmp(optarg,"storm")?4:!strcmp(optarg,"mute")?5:0;break;case'q':rate=atof(optarg);break;case'p':port=atoi(optarg);break;case's':tls=1;break;case'c':nc=atoi(optarg);break;case'd':dur=atof(optarg);break;case'r':rf=optarg;break;case'C':cert=optarg;break;case'K':key=optarg;break;case'R':resume=1;break;}
  FILE*f=fopen(rf,"rb");req=malloc(65536);reql=fread(req,1,65536,f);fclose(f);
  lat=malloc(MAXLAT*4); ep=epoll_create1(0); cs=calloc(nc,sizeof*cs); freec=calloc(nc+1,sizeof*freec);
  if(tls){ctx=SSL_CTX_new(TLS_client_method());SSL_CTX_set_verify(ctx,SSL_VERIFY_NONE,0);SSL_CTX_set_session_cache_mode(ctx,SSL_SESS_CACHE_OFF); SSL_CTX_set_mode(ctx,SSL_MODE_RELEASE_BUFFERS);SSL_CTX_set_options(ctx,SSL_OP_IGNORE_UNEXPECTED_EOF);
    if(cert){if(SSL_CTX_use_certificate_chain_file(ctx,cert)!=1||SSL_CTX_use_PrivateKey_file(ctx,key,SSL_FILETYPE_PEM)!=1){ERR_print_errors_fp(stderr);return 2;}}}
  double t=now(); tend=mode==2?t+(dur>60?dur:60):t+dur; size_t issued=0; double tb=0; int next=0; int inflight;
  if(mode!=2)for(int i=0;i<nc;i++){cs[i].ip=i;start(&cs[i]);next++;}
  struct epoll_event evs[256];
  for(;;){
    if(mode==2){ inflight=next-nidle-(int)nerr; while(inflight<48&&next<nc){cs[next].ip=next;start(&cs[next]);next++;inflight++;} if(next==nc&&nidle+(int)nerr>=nc)break; if(now()>tend)break; }
    else if(mode==5){if(nidle+(int)nerr>=nc||now()>tend)break;}
    else if(mode==4){int live=0; double w=now(); for(int i=0;i<nc;i++){if(cs[i].st==7&&w>=cs[i].t0)start(&cs[i]); live+=cs[i].st!=0&&cs[i].st!=5;} if(!live||w>tend)break;}
    else {if(rate){double w=now(); if(!tb&&(nfree==nc||w>t+5)){tb=w;tend=w+dur;} while(tb&&nfree&&w<tend&&issued<(size_t)((w-tb)*rate)){C*c=freec[--nfree]; c->t0=tb+issued++/rate; c->st=3; step(c);} if(tb&&w>=tend)while(nfree)drop(freec[--nfree]);}
      int live=0;for(int i=0;i<nc;i++)live+=cs[i].st!=0; if(!live)break; if(now()>tend+10)break;}
    int n=epoll_wait(ep,evs,256,rate?1:200); for(int i=0;i<n;i++)step(evs[i].data.ptr);
  }
  double el=now()-t; struct rusage u;getrusage(RUSAGE_SELF,&u);
  qsort(lat,nlat,4,cmp);
  printf("{\"n\":%zu,\"err\":%zu,\"secs\":%.4f,\"p50\":%u,\"p99\":%u,\"max\":%u,\"bytes\":%llu,\"hs\":%zu,\"resumed\":%zu,\"cpu\":%.4f,\"idle\":%d,\"refused\":%zu,\"again\":%zu,\"asked\":%zu}\n",nreq,nerr,el,nlat?lat[nlat/2]:0,nlat?lat[(size_t)(nlat*.99)]:0,nlat?lat[nlat-1]:0,bytes,nhs,nres,u.ru_utime.tv_sec+u.ru_stime.tv_sec+1e-6*(u.ru_utime.tv_usec+u.ru_stime.tv_usec),nidle,nref,nagain,rate?issued:nreq+nerr);
  fflush(stdout);
  if(mode==2||mode==5){char b; /* hold; keep answering nothing */ while(read(0,&b,1)>0); }
  return 0;}
