/* A libnvidia-ml.so.1 for machines without a GPU: as much of NVML as the node asks for.
 *
 * What it tells stands in the file STATE_FILE (a macro, set when it is built), read at each call:
 *
 *   init <code>                      what nvmlInit returns
 *   driver <version>
 *   cuda <number>                    12040 for 12.4
 *   unified                          cards have no memory of their own
 *   hang                             every call hangs until this line is gone
 *   hang <function>                  the same of calls of this function
 *   gpu <uuid> <bytes> <code> <name> one card; <code> is what calls about it return, 0 for success
 *   mig <card> <uuid> <bytes> <name> an instance of a card; say that nvmlDeviceGetMigMode is on
 *   say <function> <uuid> <code> <values>  what a call tells of a card (of all with *): see its function
 *                                    here; a function of which nothing is said is not supported. A call
 *                                    with an argument, or a field, is <function>:<number>
 *   process <uuid> <c|g> <pid> <bytes>  has a compute or graphics context
 *   event <serial> <uuid> <type> <data> told once, serials go up from 1; whose type the card supports
 *
 * With NO_MEMORY_V2 the library is one from before nvmlDeviceGetMemoryInfo_v2. With READ_ONCE it reads
 * the file at its first call alone, so that what a caller costs can be measured.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int nvmlReturn_t;
typedef struct card *nvmlDevice_t;
typedef struct set *nvmlEventSet_t;
typedef unsigned long long number_t;
typedef struct {
  unsigned version;
  number_t total, reserved, free, used;
} nvmlMemory_v2_t;
typedef struct {
  char busIdLegacy[16];
  unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
  char busId[32];
} nvmlPciInfo_t;
typedef struct {
  unsigned gpu, memory;
} nvmlUtilization_t;
typedef struct {
  unsigned pid;
  number_t usedGpuMemory;
  unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;
typedef struct {
  unsigned fieldId, scopeId;
  long long timestamp, latencyUsec;
  unsigned valueType;
  nvmlReturn_t nvmlReturn;
  number_t value;
} nvmlFieldValue_t;
typedef struct {
  nvmlDevice_t device;
  number_t eventType, eventData;
  unsigned gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

enum {
  UNSAID = -1,
  SUCCESS = 0,
  INVALID_ARGUMENT = 2,
  NOT_SUPPORTED = 3,
  NOT_FOUND = 6,
  INSUFFICIENT_SIZE = 7,
  TIMEOUT = 10,
  GPU_IS_LOST = 15
};
enum { CARDS_MAX = 32, SAYINGS_MAX = 256, PROCESSES_MAX = 64, EVENTS_MAX = 64, POLL_US = 5000 };

static struct card {
  char uuid[96], name[96], parent[96];
  number_t bytes;
  nvmlReturn_t answer;
} cards[CARDS_MAX];
static struct saying {
  char function[64], uuid[96], text[96];
  nvmlReturn_t code;
} sayings[SAYINGS_MAX];
static struct process {
  char uuid[96], kind;
  unsigned pid;
  number_t bytes;
} processes[PROCESSES_MAX];
static struct event {
  unsigned serial;
  char uuid[96];
  number_t type, data;
} events[EVENTS_MAX];
struct set {
  number_t types[CARDS_MAX];
};
static unsigned card_count, saying_count, process_count, event_count, told_serial;
static char driver[80];
static int cuda, unified, was_read;
static nvmlReturn_t init_answer;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Reads the state; whether this function hangs. */
static int read_state(const char *function) {
  char line[256], name[64];
  int hang = 0;
#ifdef READ_ONCE
  if (was_read) return 0;
#endif
  was_read = 1;
  FILE *file = fopen(STATE_FILE, "re");
  card_count = saying_count = process_count = event_count = 0;
  init_answer = SUCCESS;
  unified = 0;
  if (!file) return 0;
  while (fgets(line, sizeof line, file)) {
    struct card *card = &cards[card_count];
    struct saying *saying = &sayings[saying_count];
    struct process *process = &processes[process_count];
    struct event *event = &events[event_count];
    card->parent[0] = saying->text[0] = 0;
    if (!strcmp(line, "hang\n")) hang = 1;
    if (sscanf(line, "hang %63s", name) == 1 && !strcmp(name, function)) hang = 1;
    if (!strcmp(line, "unified\n")) unified = 1;
    if (card_count + 1 < CARDS_MAX) {
      if (sscanf(line, "gpu %95s %llu %d %95[^\n]", card->uuid, &card->bytes, &card->answer,
                 card->name) == 4)
        card_count++;
      else if (sscanf(line, "mig %95s %95s %llu %95[^\n]", card->parent, card->uuid, &card->bytes,
                      card->name) == 4) {
        card->answer = SUCCESS;
        card_count++;
      }
    }
    if (saying_count + 1 < SAYINGS_MAX && sscanf(line, "say %63s %95s %d %95[^\n]", saying->function,
                                                 saying->uuid, &saying->code, saying->text) >= 3)
      saying_count++;
    if (process_count + 1 < PROCESSES_MAX && sscanf(line, "process %95s %c %u %llu", process->uuid,
                                                    &process->kind, &process->pid, &process->bytes) == 4)
      process_count++;
    if (event_count + 1 < EVENTS_MAX && sscanf(line, "event %u %95s %llu %llu", &event->serial,
                                               event->uuid, &event->type, &event->data) == 4)
      event_count++;
    sscanf(line, "driver %79s", driver);
    sscanf(line, "cuda %d", &cuda);
    sscanf(line, "init %d", &init_answer);
  }
  fclose(file);
  return hang;
}

/* Holds the lock with the state read, once this function does not hang any more. */
static void enter(const char *function) {
  for (;;) {
    pthread_mutex_lock(&lock);
    if (!read_state(function)) return;
    pthread_mutex_unlock(&lock);
    usleep(POLL_US);
  }
}

static void leave(int *unused) {
  (void)unused;
  pthread_mutex_unlock(&lock);
}

#define ENTER                                                        \
  __attribute__((cleanup(leave))) int entered __attribute__((unused)); \
  enter(__func__)

/* What is said of a card, or of all. */
static nvmlReturn_t said(nvmlDevice_t device, const char *function, const char **text) {
  if (!device) return INVALID_ARGUMENT;
  if (device->answer) return device->answer;
  for (unsigned i = saying_count; i-- > 0;) {
    struct saying *saying = &sayings[i];
    int of_it = !strcmp(saying->uuid, "*") || !strcmp(saying->uuid, device->uuid);
    if (!of_it || strcmp(saying->function, function)) continue;
    *text = saying->text;
    return saying->code;
  }
  return UNSAID;
}

static nvmlReturn_t or(nvmlReturn_t answer, nvmlReturn_t unsaid) {
  return answer == UNSAID ? unsaid : answer;
}

static nvmlReturn_t said_numbers(nvmlDevice_t device, const char *function, number_t *numbers, int count) {
  const char *text = "";
  nvmlReturn_t answer = said(device, function, &text);
  char *rest = (char *)text;
  for (int i = 0; i < count && answer == SUCCESS; i++) numbers[i] = strtoull(rest, &rest, 0);
  return or(answer, NOT_SUPPORTED);
}

static nvmlReturn_t said_unsigned(nvmlDevice_t device, const char *function, unsigned *value) {
  number_t number = 0;
  nvmlReturn_t answer = said_numbers(device, function, &number, 1);
  if (answer == SUCCESS) *value = (unsigned)number;
  return answer;
}

static nvmlReturn_t said_at(nvmlDevice_t device, const char *function, unsigned at, unsigned *value) {
  char name[96];
  snprintf(name, sizeof name, "%s:%u", function, at);
  return said_unsigned(device, name, value);
}

static nvmlReturn_t put(char *buffer, unsigned length, const char *text) {
  if (strlen(text) + 1 > length) return INSUFFICIENT_SIZE;
  strcpy(buffer, text);
  return SUCCESS;
}

/* The library as a whole. */

nvmlReturn_t nvmlInit_v2(void) {
  ENTER;
  return init_answer;
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  return nvmlInit_v2();
}

nvmlReturn_t nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(nvmlReturn_t code) { return code == SUCCESS ? "Success" : "Failure"; }

nvmlReturn_t nvmlSystemGetDriverVersion(char *buffer, unsigned length) {
  ENTER;
  return put(buffer, length, driver);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
  ENTER;
  *version = cuda;
  return SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
  return nvmlSystemGetCudaDriverVersion_v2(version);
}

/* Which devices there are. */

static nvmlReturn_t pick(const char *parent, unsigned index, nvmlDevice_t *device) {
  for (unsigned i = 0; i < card_count; i++)
    if (!strcmp(cards[i].parent, parent) && index-- == 0) {
      *device = &cards[i];
      return cards[i].answer == GPU_IS_LOST ? GPU_IS_LOST : SUCCESS;
    }
  return NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *cards_there) {
  ENTER;
  nvmlDevice_t device;
  for (*cards_there = 0; pick("", *cards_there, &device) != NOT_FOUND;) ++*cards_there;
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
  ENTER;
  nvmlReturn_t answer = pick("", index, device);
  return answer == NOT_FOUND ? INVALID_ARGUMENT : answer;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *buffer, unsigned length) {
  ENTER;
  if (!device) return INVALID_ARGUMENT;
  return device->answer ? device->answer : put(buffer, length, device->uuid);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *buffer, unsigned length) {
  ENTER;
  return device->answer ? device->answer : put(buffer, length, device->name);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
  ENTER;
  number_t numbers[2];
  nvmlReturn_t answer = said_numbers(device, __func__, numbers, 2);
  if (answer == SUCCESS) *current = (unsigned)numbers[0], *pending = (unsigned)numbers[1];
  return answer;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *most) {
  ENTER;
  *most = 7;
  return device->answer;
}

/* Real ones have gaps: here every second index is one. */
nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index,
                                                 nvmlDevice_t *instance) {
  ENTER;
  if (device->answer) return device->answer;
  return index % 2 ? NOT_FOUND : pick(device->uuid, index / 2, instance);
}

/* What a card is. */

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
  ENTER;
  number_t numbers[2];
  nvmlReturn_t answer = said_numbers(device, __func__, numbers, 2);
  if (answer == SUCCESS) *major = (int)numbers[0], *minor = (int)numbers[1];
  return answer;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
  ENTER;
  const char *text = "";
  nvmlReturn_t answer = or(said(device, __func__, &text), NOT_SUPPORTED);
  return answer ? answer : put(pci->busId, sizeof pci->busId, text);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatts) {
  ENTER;
  return said_unsigned(device, __func__, milliwatts);
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
  ENTER;
  number_t numbers[2];
  nvmlReturn_t answer = said_numbers(device, __func__, numbers, 2);
  if (answer == SUCCESS) *current = (unsigned)numbers[0], *pending = (unsigned)numbers[1];
  return answer;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned *mode) {
  ENTER;
  return said_unsigned(device, __func__, mode);
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *number) {
  ENTER;
  return said_unsigned(device, __func__, number);
}

/* How it does. */

#ifndef NO_MEMORY_V2
/* Says reserved, free, used; without it nothing is used. */
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
  ENTER;
  number_t numbers[3] = {0, device->bytes, 0};
  const char *text = "";
  if (unified) return NOT_SUPPORTED;
  nvmlReturn_t answer = said(device, __func__, &text);
  if (answer == SUCCESS) said_numbers(device, __func__, numbers, 3);
  memory->total = device->bytes;
  memory->reserved = numbers[0];
  memory->free = numbers[1];
  memory->used = numbers[2];
  return or(answer, SUCCESS);
}
#endif

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
  ENTER;
  number_t numbers[2];
  nvmlReturn_t answer = said_numbers(device, __func__, numbers, 2);
  if (answer == SUCCESS) rates->gpu = (unsigned)numbers[0], rates->memory = (unsigned)numbers[1];
  return answer;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
  ENTER;
  return said_unsigned(device, __func__, milliwatts);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, number_t *millijoules) {
  ENTER;
  return said_numbers(device, __func__, millijoules, 1);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned clock, unsigned *megahertz) {
  ENTER;
  return said_at(device, __func__, clock, megahertz);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius) {
  ENTER;
  return said_at(device, __func__, sensor, celsius);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, number_t *reasons) {
  ENTER;
  return said_numbers(device, __func__, reasons, 1);
}

/* Only uncorrected errors since the driver was loaded are asked for. */
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned type, unsigned counter,
                                         number_t *errors) {
  ENTER;
  if (type != 1 || counter != 0) return INVALID_ARGUMENT;
  return said_numbers(device, __func__, errors, 1);
}

/* Says the type of the value, and the value. */
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
  ENTER;
  const char *text = "";
  nvmlReturn_t whole = said(device, __func__, &text);
  for (int i = 0; i < count; i++) {
    char name[96];
    number_t numbers[2] = {0, 0};
    snprintf(name, sizeof name, "%s:%u", __func__, values[i].fieldId);
    values[i].nvmlReturn = said_numbers(device, name, numbers, 2);
    values[i].valueType = (unsigned)numbers[0];
    values[i].value = numbers[1];
  }
  return or(whole, SUCCESS);
}

static nvmlReturn_t list(nvmlDevice_t device, const char *function, char kind, unsigned *count,
                         nvmlProcessInfo_t *infos) {
  const char *text = "";
  nvmlReturn_t answer = said(device, function, &text);
  unsigned found = 0, most = *count;
  if (answer > 0) return answer;
  if (answer == SUCCESS && *text) {
    *count = (unsigned)strtoull(text, NULL, 0);
    return INSUFFICIENT_SIZE;
  }
  for (unsigned i = 0; i < process_count; i++) {
    struct process *process = &processes[i];
    if (process->kind != kind || strcmp(process->uuid, device->uuid)) continue;
    if (infos && found < most)
      infos[found] = (nvmlProcessInfo_t){process->pid, process->bytes, -1U, -1U};
    found++;
  }
  *count = found;
  return found > most || (!infos && found) ? INSUFFICIENT_SIZE : SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                     nvmlProcessInfo_t *infos) {
  ENTER;
  return list(device, __func__, 'c', count, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                      nvmlProcessInfo_t *infos) {
  ENTER;
  return list(device, __func__, 'g', count, infos);
}

/* What happens to it. */

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, number_t *types) {
  ENTER;
  return said_numbers(device, __func__, types, 1);
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
  ENTER;
  *set = calloc(1, sizeof **set);
  return SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
  free(set);
  return SUCCESS;
}

/* Refuses types that the card doesn't support, as the real one does. */
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, number_t types, nvmlEventSet_t set) {
  ENTER;
  const char *text = "";
  number_t supported = 0;
  nvmlReturn_t answer = said(device, __func__, &text);
  if (answer > 0) return answer;
  answer = said_numbers(device, "nvmlDeviceGetSupportedEventTypes", &supported, 1);
  if (answer) return answer;
  if (types & ~supported) return NOT_SUPPORTED;
  set->types[device - cards] |= types;
  return SUCCESS;
}

/* The next event that the set is registered for; what is said of this function of all cards before. */
static nvmlReturn_t next(nvmlEventSet_t set, nvmlEventData_t *data) {
  struct card any = {"*", "", "", 0, SUCCESS};
  const char *text = "";
  nvmlReturn_t answer = said(&any, "nvmlEventSetWait_v2", &text);
  if (answer > 0) return answer;
  for (unsigned i = 0; i < event_count; i++)
    for (unsigned at = 0; at < card_count; at++) {
      struct event *event = &events[i];
      int of_it = !strcmp(event->uuid, cards[at].uuid) && set->types[at] & event->type;
      if (!of_it || event->serial <= told_serial) continue;
      told_serial = event->serial;
      *data = (nvmlEventData_t){&cards[at], event->type, event->data, -1U, -1U};
      return SUCCESS;
    }
  return TIMEOUT;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned milliseconds) {
  for (unsigned long waited = 0;; waited += POLL_US) {
    nvmlReturn_t answer;
    {
      ENTER;
      answer = next(set, data);
    }
    if (answer != TIMEOUT || waited >= milliseconds * 1000UL) return answer;
    usleep(POLL_US);
  }
}
