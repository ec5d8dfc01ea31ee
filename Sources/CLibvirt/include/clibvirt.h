// libvirt's C library, loaded when it is needed first: Strobe runs where there is none.
//
// Every function blocks its thread until libvirtd has answered; any thread may call any of them. What fails
// returns NULL or -1 and leaves the reason in `clibvirt_last_error`, of the same thread. Strings that are
// returned are the caller's: free(3). https://libvirt.org/html/index.html
#ifndef STROBE_CLIBVIRT_H
#define STROBE_CLIBVIRT_H

#include <stddef.h>

typedef struct _virConnect clibvirt_connection;
typedef struct _virDomain clibvirt_domain;
typedef struct _virDomainCheckpoint clibvirt_checkpoint;

// Loads libvirt.so.0. 0 when it worked, now or before; else -1, and `message` says why.
int clibvirt_load(char *message, size_t size);
// Whether a library is a libvirt that is new enough; it isn't used then.
int clibvirt_try(const char *library, char *message, size_t size);

// Of virErrorNumber (https://libvirt.org/html/libvirt-virterror.html).
extern const int clibvirt_ERR_NO_SUPPORT, clibvirt_ERR_NO_CONNECT, clibvirt_ERR_AUTH_FAILED;
extern const int clibvirt_ERR_OPERATION_DENIED, clibvirt_ERR_SYSTEM_ERROR, clibvirt_ERR_NO_DOMAIN;
extern const int clibvirt_ERR_OPERATION_INVALID, clibvirt_ERR_OPERATION_TIMEOUT, clibvirt_ERR_RESOURCE_BUSY;
extern const int clibvirt_ERR_ACCESS_DENIED, clibvirt_ERR_AUTH_UNAVAILABLE, clibvirt_ERR_AGENT_UNRESPONSIVE;
extern const int clibvirt_ERR_NO_DOMAIN_CHECKPOINT, clibvirt_ERR_NO_DOMAIN_BACKUP;
extern const int clibvirt_ERR_CHECKPOINT_INCONSISTENT, clibvirt_ERR_ARGUMENT_UNSUPPORTED;
extern const int clibvirt_ERR_OPERATION_UNSUPPORTED;

// The code and the text of what failed last on this thread; 0 and "" when nothing did.
int clibvirt_last_error(char *message, size_t size);

clibvirt_connection *clibvirt_open(const char *uri);
void clibvirt_close(clibvirt_connection *connection);
// "QEMU".
const char *clibvirt_driver(clibvirt_connection *connection);
// 1,000,000 * major + 1,000 * minor + release: of libvirtd, of the hypervisor.
int clibvirt_version(clibvirt_connection *connection, unsigned long *version);
int clibvirt_hypervisor_version(clibvirt_connection *connection, unsigned long *version);
// XML of what domains may have whose emulator, machine and architecture aren't named.
char *clibvirt_domain_capabilities(clibvirt_connection *connection);

clibvirt_domain *clibvirt_domain_by_name(clibvirt_connection *connection, const char *name);
clibvirt_domain *clibvirt_domain_by_uuid(clibvirt_connection *connection, const char *uuid);
void clibvirt_domain_free(clibvirt_domain *domain);
char *clibvirt_domain_xml(clibvirt_domain *domain, int inactive);
// 36 characters.
char *clibvirt_domain_uuid(clibvirt_domain *domain);
char *clibvirt_domain_name(clibvirt_domain *domain);

enum {
  clibvirt_STATE_OFF = 0,
  clibvirt_STATE_RUNNING,
  clibvirt_STATE_PAUSED,
  clibvirt_STATE_IO_ERROR,  // paused because a disk could not be written
};
int clibvirt_domain_state(clibvirt_domain *domain);
int clibvirt_domain_resume(clibvirt_domain *domain);
// Bytes that the guest sees.
int clibvirt_disk_size(clibvirt_domain *domain, const char *target, unsigned long long *bytes);

// Begins a backup job; `checkpoint` may be NULL.
int clibvirt_backup_begin(clibvirt_domain *domain, const char *backup, const char *checkpoint);
// The backup job that runs; NULL with NO_DOMAIN_BACKUP when there is none.
char *clibvirt_backup_xml(clibvirt_domain *domain);
// Whether any job runs: 1, 0; -1 when that can't be told.
int clibvirt_job_runs(clibvirt_domain *domain);
int clibvirt_job_abort(clibvirt_domain *domain);

// All checkpoints' names: a string of `*count` texts, each with its NUL.
char *clibvirt_checkpoint_names(clibvirt_domain *domain, size_t *count);
clibvirt_checkpoint *clibvirt_checkpoint_by_name(clibvirt_domain *domain, const char *name);
void clibvirt_checkpoint_free(clibvirt_checkpoint *checkpoint);
// Without the domain's part.
char *clibvirt_checkpoint_xml(clibvirt_checkpoint *checkpoint);
// Replaces what libvirt knows of a checkpoint; does nothing to the disks. `is_checked`: fails unless they have its
// bitmaps, which count; libvirt before 6.10 always fails.
int clibvirt_checkpoint_redefine(clibvirt_domain *domain, const char *xml, int is_checked);
// Never its children. `metadata_only`: libvirt forgets it, the disks keep their bitmaps.
int clibvirt_checkpoint_delete(clibvirt_checkpoint *checkpoint, int metadata_only);

// How long the guest's agent may take for each answer, whoever asks; 0: for ever, as at libvirt's start.
int clibvirt_limit_agent(clibvirt_domain *domain, int seconds);
// Asks it what harms nobody.
int clibvirt_ask_agent(clibvirt_domain *domain);
// How many file systems were frozen or thawed.
int clibvirt_freeze(clibvirt_domain *domain);
int clibvirt_thaw(clibvirt_domain *domain);

#endif
