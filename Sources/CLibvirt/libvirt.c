#include "clibvirt.h"

#include <dlfcn.h>
#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What is used of the library. The newest is of libvirt 6.0.
#define FUNCTIONS(F)                                                                                   \
  F(virInitialize) F(virSetErrorFunc) F(virGetLastError) F(virConnectOpen)                            \
  F(virConnectClose) F(virConnectGetType) F(virConnectGetLibVersion) F(virConnectGetVersion)           \
  F(virConnectGetDomainCapabilities)                                                                  \
  F(virDomainLookupByName) F(virDomainLookupByUUIDString) F(virDomainFree) F(virDomainGetXMLDesc)      \
  F(virDomainGetUUIDString) F(virDomainGetName) F(virDomainGetState)                 \
  F(virDomainResume) F(virDomainGetBlockInfo) F(virDomainBackupBegin) F(virDomainBackupGetXMLDesc)     \
  F(virDomainGetJobInfo) F(virDomainAbortJob) F(virDomainListAllCheckpoints)                           \
  F(virDomainCheckpointGetName) F(virDomainCheckpointLookupByName) F(virDomainCheckpointFree)          \
  F(virDomainCheckpointGetXMLDesc) F(virDomainCheckpointCreateXML) F(virDomainCheckpointDelete)        \
  F(virDomainFSFreeze) F(virDomainFSThaw) F(virDomainAgentSetResponseTimeout) F(virDomainGetTime)

#define POINTER(name) __typeof__(name) *name;
struct table {
  FUNCTIONS(POINTER)
};

static struct table api;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int loaded = -1;
static char failure[512];

#define CODE(name) const int clibvirt_ERR_##name = VIR_ERR_##name;
CODE(NO_SUPPORT)
CODE(NO_CONNECT)
CODE(AUTH_FAILED)
CODE(OPERATION_DENIED)
CODE(SYSTEM_ERROR)
CODE(NO_DOMAIN)
CODE(OPERATION_INVALID)
CODE(OPERATION_TIMEOUT)
CODE(RESOURCE_BUSY)
CODE(ACCESS_DENIED)
CODE(AUTH_UNAVAILABLE)
CODE(AGENT_UNRESPONSIVE)
CODE(NO_DOMAIN_CHECKPOINT)
CODE(NO_DOMAIN_BACKUP)
CODE(CHECKPOINT_INCONSISTENT)
CODE(ARGUMENT_UNSUPPORTED)
CODE(OPERATION_UNSUPPORTED)

static int resolve(void *library, struct table *table, char *message, size_t size) {
#define RESOLVE(name)                                                         \
  if ((*(void **)&table->name = dlsym(library, #name)) == NULL) {             \
    snprintf(message, size, "it has no %s: it is older than 6.0", #name);     \
    return -1;                                                                \
  }
  FUNCTIONS(RESOLVE)
  return 0;
}

static void *open_library(const char *name, struct table *table, char *message, size_t size) {
  void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    const char *why = dlerror();
    snprintf(message, size, "%s", why != NULL ? why : "it can't be loaded");
    return NULL;
  }
  if (resolve(library, table, message, size) == 0) return library;
  dlclose(library);
  return NULL;
}

// libvirt prints errors otherwise.
static void be_silent(void *context, virErrorPtr error) {
  (void)context;
  (void)error;
}

static void load(void) {
  // Never closed: it has threads of its own.
  if (open_library("libvirt.so.0", &api, failure, sizeof failure) == NULL) return;
  if (api.virInitialize() < 0) {
    snprintf(failure, sizeof failure, "it can't be started");
    return;
  }
  api.virSetErrorFunc(NULL, be_silent);
  loaded = 0;
}

int clibvirt_load(char *message, size_t size) {
  pthread_once(&once, load);
  if (loaded != 0) snprintf(message, size, "%s", failure);
  return loaded;
}

int clibvirt_try(const char *name, char *message, size_t size) {
  struct table table;
  void *library = open_library(name, &table, message, size);
  // Left open: it may be the one that is in use.
  return library == NULL ? -1 : 0;
}

int clibvirt_last_error(char *message, size_t size) {
  virErrorPtr error = api.virGetLastError();
  snprintf(message, size, "%s", error != NULL && error->message != NULL ? error->message : "");
  return error != NULL ? error->code : 0;
}

// libvirt writes to its socket without MSG_NOSIGNAL: a libvirtd that has died would end this process, too. The
// signal is kept from the calling thread and taken away.
static int block_pipe_signal(sigset_t *before) {
  sigset_t pipe, pending;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe, before);
  return sigismember(&pending, SIGPIPE);
}

static void unblock_pipe_signal(const sigset_t *before, int was_pending) {
  const struct timespec now = {0, 0};
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  if (!was_pending)
    while (sigtimedwait(&pipe, NULL, &now) == -1 && errno == EINTR) continue;
  pthread_sigmask(SIG_SETMASK, before, NULL);
}

#define GUARDED(call)                              \
  ({                                               \
    sigset_t before_;                              \
    int was_pending_ = block_pipe_signal(&before_); \
    __auto_type result_ = (call);                  \
    unblock_pipe_signal(&before_, was_pending_);   \
    result_;                                       \
  })

clibvirt_connection *clibvirt_open(const char *uri) { return GUARDED(api.virConnectOpen(uri)); }
void clibvirt_close(clibvirt_connection *connection) { GUARDED(api.virConnectClose(connection)); }

const char *clibvirt_driver(clibvirt_connection *connection) {
  return GUARDED(api.virConnectGetType(connection));
}

int clibvirt_version(clibvirt_connection *connection, unsigned long *version) {
  return GUARDED(api.virConnectGetLibVersion(connection, version));
}

int clibvirt_hypervisor_version(clibvirt_connection *connection, unsigned long *version) {
  return GUARDED(api.virConnectGetVersion(connection, version));
}

char *clibvirt_domain_capabilities(clibvirt_connection *connection) {
  return GUARDED(api.virConnectGetDomainCapabilities(connection, NULL, NULL, NULL, NULL, 0));
}

clibvirt_domain *clibvirt_domain_by_name(clibvirt_connection *connection, const char *name) {
  return GUARDED(api.virDomainLookupByName(connection, name));
}

clibvirt_domain *clibvirt_domain_by_uuid(clibvirt_connection *connection, const char *uuid) {
  return GUARDED(api.virDomainLookupByUUIDString(connection, uuid));
}

void clibvirt_domain_free(clibvirt_domain *domain) { api.virDomainFree(domain); }

char *clibvirt_domain_xml(clibvirt_domain *domain, int inactive) {
  return GUARDED(api.virDomainGetXMLDesc(domain, inactive ? VIR_DOMAIN_XML_INACTIVE : 0));
}

char *clibvirt_domain_uuid(clibvirt_domain *domain) {
  char text[VIR_UUID_STRING_BUFLEN];
  return api.virDomainGetUUIDString(domain, text) < 0 ? NULL : strdup(text);
}

char *clibvirt_domain_name(clibvirt_domain *domain) {
  const char *name = api.virDomainGetName(domain);
  return name == NULL ? NULL : strdup(name);
}

int clibvirt_domain_state(clibvirt_domain *domain) {
  int state, reason;
  if (GUARDED(api.virDomainGetState(domain, &state, &reason, 0)) < 0) return -1;
  switch (state) {
    case VIR_DOMAIN_SHUTOFF:
    case VIR_DOMAIN_CRASHED:
    case VIR_DOMAIN_NOSTATE: return clibvirt_STATE_OFF;
    case VIR_DOMAIN_PAUSED:
      return reason == VIR_DOMAIN_PAUSED_IOERROR ? clibvirt_STATE_IO_ERROR : clibvirt_STATE_PAUSED;
    default: return clibvirt_STATE_RUNNING;
  }
}

int clibvirt_domain_resume(clibvirt_domain *domain) { return GUARDED(api.virDomainResume(domain)); }

int clibvirt_disk_size(clibvirt_domain *domain, const char *target, unsigned long long *bytes) {
  virDomainBlockInfo information;
  if (GUARDED(api.virDomainGetBlockInfo(domain, target, &information, 0)) < 0) return -1;
  *bytes = information.capacity;
  return 0;
}

int clibvirt_backup_begin(clibvirt_domain *domain, const char *backup, const char *checkpoint) {
  return GUARDED(api.virDomainBackupBegin(domain, backup, checkpoint, 0));
}

char *clibvirt_backup_xml(clibvirt_domain *domain) {
  return GUARDED(api.virDomainBackupGetXMLDesc(domain, 0));
}

int clibvirt_job_runs(clibvirt_domain *domain) {
  virDomainJobInfo information;
  if (GUARDED(api.virDomainGetJobInfo(domain, &information)) < 0) return -1;
  return information.type == VIR_DOMAIN_JOB_BOUNDED || information.type == VIR_DOMAIN_JOB_UNBOUNDED;
}

int clibvirt_job_abort(clibvirt_domain *domain) { return GUARDED(api.virDomainAbortJob(domain)); }

// Puts the names one after another; NULL without memory.
static char *joined(virDomainCheckpointPtr *checkpoints, int count) {
  size_t size = 0, at = 0;
  for (int index = 0; index < count; index++)
    size += strlen(api.virDomainCheckpointGetName(checkpoints[index])) + 1;
  char *text = malloc(size + 1);
  for (int index = 0; text != NULL && index < count; index++) {
    const char *name = api.virDomainCheckpointGetName(checkpoints[index]);
    memcpy(text + at, name, strlen(name) + 1);
    at += strlen(name) + 1;
  }
  return text;
}

char *clibvirt_checkpoint_names(clibvirt_domain *domain, size_t *count) {
  virDomainCheckpointPtr *checkpoints = NULL;
  int found = GUARDED(api.virDomainListAllCheckpoints(domain, &checkpoints, 0));
  if (found < 0) return NULL;
  char *text = joined(checkpoints, found);
  for (int index = 0; index < found; index++) api.virDomainCheckpointFree(checkpoints[index]);
  free(checkpoints);
  *count = (size_t)found;
  return text;
}

clibvirt_checkpoint *clibvirt_checkpoint_by_name(clibvirt_domain *domain, const char *name) {
  return GUARDED(api.virDomainCheckpointLookupByName(domain, name, 0));
}

void clibvirt_checkpoint_free(clibvirt_checkpoint *checkpoint) {
  api.virDomainCheckpointFree(checkpoint);
}

char *clibvirt_checkpoint_xml(clibvirt_checkpoint *checkpoint) {
  return GUARDED(api.virDomainCheckpointGetXMLDesc(checkpoint, VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN));
}

int clibvirt_checkpoint_redefine(clibvirt_domain *domain, const char *xml, int is_checked) {
  unsigned flags = VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE;
  if (is_checked) flags |= VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE;
  virDomainCheckpointPtr checkpoint =
      GUARDED(api.virDomainCheckpointCreateXML(domain, xml, flags));
  if (checkpoint == NULL) return -1;
  api.virDomainCheckpointFree(checkpoint);
  return 0;
}

int clibvirt_checkpoint_delete(clibvirt_checkpoint *checkpoint, int metadata_only) {
  return GUARDED(api.virDomainCheckpointDelete(
      checkpoint, metadata_only ? VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY : 0));
}

int clibvirt_limit_agent(clibvirt_domain *domain, int seconds) {
  int limit = seconds > 0 ? seconds : VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK;
  return GUARDED(api.virDomainAgentSetResponseTimeout(domain, limit, 0));
}

int clibvirt_ask_agent(clibvirt_domain *domain) {
  long long seconds;
  unsigned int nanoseconds;
  return GUARDED(api.virDomainGetTime(domain, &seconds, &nanoseconds, 0));
}

int clibvirt_freeze(clibvirt_domain *domain) { return GUARDED(api.virDomainFSFreeze(domain, NULL, 0, 0)); }
int clibvirt_thaw(clibvirt_domain *domain) { return GUARDED(api.virDomainFSThaw(domain, NULL, 0, 0)); }
