/* A transport of Sparkle over MPI. It needs MPI 2.2 or later and C99. sparkle_mpi.h says how to use it. */
#include "sparkle_mpi.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Messages are cut into pieces of at most 1 GiB: counts of MPI are ints, and some versions go wrong well below the largest. */
#define PIECE ((size_t)1 << 28)

/* The key under which the duplicate is kept with its communicator. */
static int key = MPI_KEYVAL_INVALID;

/* The requests of started messages. */
typedef struct {
  int count;
  MPI_Status *statuses;
  MPI_Request requests[];
} started_messages;

static int free_duplicate(MPI_Comm communicator, int keyval, void *duplicate, void *extra) {
  (void)communicator, (void)keyval, (void)extra;
  int error = MPI_Comm_free((MPI_Comm *)duplicate);
  free(duplicate);
  return error;
}

static size_t pieces(size_t len) { return len / PIECE + (len % PIECE != 0); }

static int start(void *user, const sparkle_message *sends, size_t send_count, const sparkle_message *receives,
                 size_t receive_count, void **out_request) {
  MPI_Comm communicator = *(MPI_Comm *)user;
  size_t count = 0;
  for (size_t i = 0; i < receive_count; i++) count += pieces(receives[i].len);
  for (size_t i = 0; i < send_count; i++) count += pieces(sends[i].len);
  if (count > INT_MAX) return MPI_ERR_COUNT;
  started_messages *started = malloc(sizeof *started + count * sizeof started->requests[0]);
  MPI_Status *statuses = malloc((count + 1) * sizeof *statuses);
  if (!started || !statuses) {
    free(started), free(statuses);
    return MPI_ERR_NO_MEM;
  }
  started->statuses = statuses;
  started->count = 0;
  int error = MPI_SUCCESS;
  for (size_t i = 0; i < receive_count + send_count && error == MPI_SUCCESS; i++) {
    const sparkle_message *message = i < receive_count ? &receives[i] : &sends[i - receive_count];
    for (size_t at = 0; at < message->len && error == MPI_SUCCESS; at += PIECE) {
      int len = (int)(message->len - at < PIECE ? message->len - at : PIECE);
      MPI_Request *request = &started->requests[started->count];
      error = i < receive_count
                  ? MPI_Irecv(message->data + at, len, MPI_FLOAT, message->rank, message->tag, communicator, request)
                  : MPI_Isend(message->data + at, len, MPI_FLOAT, message->rank, message->tag, communicator, request);
      if (error == MPI_SUCCESS) started->count++;
    }
  }
  /* After an error the messages that were started stay under way, so their requests are kept for ever. */
  if (error == MPI_SUCCESS) *out_request = started;
  return error;
}

static int finish(void *user, void *request) {
  (void)user;
  started_messages *started = request;
  int error = MPI_Waitall(started->count, started->requests, started->statuses);
  if (error != MPI_SUCCESS) return error;
  free(started->statuses), free(started);
  return error;
}

/* A probe lets MPI work on all messages. */
static int progress(void *user) {
  int flag;
  return MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, *(MPI_Comm *)user, &flag, MPI_STATUS_IGNORE);
}

static int broadcast(void *user, int32_t root, float *data, size_t len) {
  int error = MPI_SUCCESS;
  for (size_t at = 0; at < len && error == MPI_SUCCESS; at += PIECE) {
    error = MPI_Bcast(data + at, (int)(len - at < PIECE ? len - at : PIECE), MPI_FLOAT, root, *(MPI_Comm *)user);
  }
  return error;
}

static int agree(void *user, int64_t *values, size_t count) {
  int error = MPI_SUCCESS;
  for (size_t at = 0; at < count && error == MPI_SUCCESS; at += PIECE) {
    int len = (int)(count - at < PIECE ? count - at : PIECE);
    error = MPI_Allreduce(MPI_IN_PLACE, values + at, len, MPI_INT64_T, MPI_MAX, *(MPI_Comm *)user);
  }
  return error;
}

static void describe(void *user, int32_t code, char *text, size_t capacity) {
  char message[MPI_MAX_ERROR_STRING];
  int len = 0;
  (void)user;
  if (capacity == 0) return;
  if (MPI_Error_string(code, message, &len) != MPI_SUCCESS) len = 0;
  size_t shown = (size_t)len < capacity ? (size_t)len : capacity - 1;
  memcpy(text, message, shown);
  text[shown] = '\0';
}

/* The duplicate of `communicator`, which is made at the first call. */
static int duplicate_of(MPI_Comm communicator, MPI_Comm **out) {
  int found = 0, error;
  if (key == MPI_KEYVAL_INVALID) {
    error = MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, free_duplicate, &key, NULL);
    if (error != MPI_SUCCESS) return error;
  }
  error = MPI_Comm_get_attr(communicator, key, out, &found);
  if (error != MPI_SUCCESS || found) return error;
  MPI_Comm *duplicate = malloc(sizeof *duplicate);
  /* Without memory this rank still takes part, so that the others do not wait. */
  MPI_Comm made;
  error = MPI_Comm_dup(communicator, &made);
  if (error != MPI_SUCCESS || !duplicate) {
    free(duplicate);
    return error != MPI_SUCCESS ? error : MPI_ERR_NO_MEM;
  }
  *duplicate = made;
  MPI_Comm_set_errhandler(made, MPI_ERRORS_RETURN);
  error = MPI_Comm_set_attr(communicator, key, duplicate);
  *out = duplicate;
  return error;
}

int sparkle_mpi_transport(MPI_Comm communicator, sparkle_transport *out) {
  MPI_Comm *duplicate;
  int rank, ranks, inter = 0;
  int error = MPI_Comm_test_inter(communicator, &inter);
  if (error == MPI_SUCCESS && inter) error = MPI_ERR_COMM;
  if (error == MPI_SUCCESS) error = duplicate_of(communicator, &duplicate);
  if (error == MPI_SUCCESS) error = MPI_Comm_rank(communicator, &rank);
  if (error == MPI_SUCCESS) error = MPI_Comm_size(communicator, &ranks);
  if (error != MPI_SUCCESS) return error;
  sparkle_transport transport = {
      .size = sizeof transport,
      .user = duplicate,
      .rank = rank,
      .ranks = ranks,
      .start = start,
      .finish = finish,
      .progress = progress,
      .broadcast = broadcast,
      .agree = agree,
      .describe = describe,
  };
  *out = transport;
  return MPI_SUCCESS;
}

int sparkle_mpi_transport_f(MPI_Fint communicator, sparkle_transport *out) {
  return sparkle_mpi_transport(MPI_Comm_f2c(communicator), out);
}

sparkle_status sparkle_mpi_group(MPI_Comm communicator, sparkle_device *device, sparkle_group **out) {
  sparkle_transport transport;
  if (sparkle_mpi_transport(communicator, &transport) != MPI_SUCCESS) return SPARKLE_ERROR_TRANSPORT;
  return sparkle_group_create(device, &transport, out);
}

sparkle_status sparkle_mpi_group_f(MPI_Fint communicator, sparkle_device *device, sparkle_group **out) {
  return sparkle_mpi_group(MPI_Comm_f2c(communicator), device, out);
}

int sparkle_mpi_device(MPI_Comm communicator, char selector[32]) {
  char name[MPI_MAX_PROCESSOR_NAME] = {0};
  int len, rank, ranks, local = 0, error = MPI_Get_processor_name(name, &len);
  if (error == MPI_SUCCESS) error = MPI_Comm_rank(communicator, &rank);
  if (error == MPI_SUCCESS) error = MPI_Comm_size(communicator, &ranks);
  if (error != MPI_SUCCESS) return error;
  char *names = malloc((size_t)ranks * sizeof name);
  if (!names) return MPI_ERR_NO_MEM;
  error = MPI_Allgather(name, sizeof name, MPI_CHAR, names, sizeof name, MPI_CHAR, communicator);
  for (int i = 0; error == MPI_SUCCESS && i < rank; i++) {
    local += memcmp(names + (size_t)i * sizeof name, name, sizeof name) == 0;
  }
  free(names);
  if (error != MPI_SUCCESS) return error;

  size_t devices = 0, gpus = 0;
  sparkle_device_info info = {.size = sizeof info};
  strcpy(selector, "cpu");
  if (sparkle_device_count(&devices) != SPARKLE_OK) return MPI_SUCCESS;
  for (int pass = 0; pass < 2; pass++) {
    size_t index = 0;
    for (size_t i = 0; i < devices; i++) {
      if (sparkle_device_describe(i, &info) != SPARKLE_OK || info.kind != SPARKLE_DEVICE_KIND_GL) continue;
      if (!info.usable || info.software) continue;
      if (pass == 0) gpus++;
      else if (index++ == (size_t)local % gpus) memcpy(selector, info.id, sizeof info.id);
    }
    if (gpus == 0) break;
  }
  return MPI_SUCCESS;
}

int sparkle_mpi_device_f(MPI_Fint communicator, char selector[32]) {
  return sparkle_mpi_device(MPI_Comm_f2c(communicator), selector);
}
