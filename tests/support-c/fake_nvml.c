/* A libnvidia-ml.so.1 for machines without a GPU: as much of NVML as the node asks for.
 *
 * What it tells stands in the file STATE_FILE (a macro, set when it is built), read at each call:
 *
 *   init <code>                      what nvmlInit returns
 *   driver <version>
 *   cuda <number>                    12040 for 12.4
 *   unified                          cards have no memory of their own
 *   hang                             every call hangs until this line is gone
 *   gpu <uuid> <bytes> <code> <name> one card; <code> is what calls about it return, 0 for success
 *
 * With NO_MEMORY_V2 the library is one from before nvmlDeviceGetMemoryInfo_v2.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef int nvmlReturn_t;
typedef struct card *nvmlDevice_t;
typedef struct {
  unsigned version;
  unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
enum { CARDS_MAX = 16 };

static struct card {
  char uuid[96], name[96];
  unsigned long long bytes;
  nvmlReturn_t answer;
} cards[CARDS_MAX];
static unsigned count;
static char driver[80];
static int cuda;
static nvmlReturn_t init_answer;
static int unified;

static int read_state(void) {
  char line[256];
  int hang = 0;
  FILE *file = fopen(STATE_FILE, "re");
  count = 0;
  init_answer = SUCCESS;
  unified = 0;
  if (!file) return 0;
  while (fgets(line, sizeof line, file)) {
    struct card *card = &cards[count];
    if (!strcmp(line, "hang\n")) hang = 1;
    if (!strcmp(line, "unified\n")) unified = 1;
    if (count < CARDS_MAX && sscanf(line, "gpu %95s %llu %d %95[^\n]", card->uuid, &card->bytes,
                                    &card->answer, card->name) == 4)
      count++;
    sscanf(line, "driver %79s", driver);
    sscanf(line, "cuda %d", &cuda);
    sscanf(line, "init %d", &init_answer);
  }
  fclose(file);
  return hang;
}

static void state(void) {
  while (read_state()) usleep(5000);
}

static nvmlReturn_t put(char *buffer, unsigned length, const char *text) {
  if (strlen(text) + 1 > length) return INSUFFICIENT_SIZE;
  strcpy(buffer, text);
  return SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void) {
  state();
  return init_answer;
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  return nvmlInit_v2();
}

nvmlReturn_t nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(nvmlReturn_t code) { return code == SUCCESS ? "Success" : "Failure"; }

nvmlReturn_t nvmlSystemGetDriverVersion(char *buffer, unsigned length) {
  state();
  return put(buffer, length, driver);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
  state();
  *version = cuda;
  return SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
  return nvmlSystemGetCudaDriverVersion_v2(version);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *cards_there) {
  state();
  *cards_there = count;
  return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
  state();
  if (index >= count) return INVALID_ARGUMENT;
  *device = &cards[index];
  return cards[index].answer == GPU_IS_LOST ? GPU_IS_LOST : SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *buffer, unsigned length) {
  return device->answer ? device->answer : put(buffer, length, device->uuid);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *buffer, unsigned length) {
  return device->answer ? device->answer : put(buffer, length, device->name);
}

#ifndef NO_MEMORY_V2
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
  if (unified) return NOT_SUPPORTED;
  memory->total = device->bytes;
  memory->reserved = memory->used = 0;
  memory->free = device->bytes;
  return device->answer;
}
#endif
