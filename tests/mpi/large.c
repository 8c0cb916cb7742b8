/* Messages beyond 2 GiB are cut into pieces that MPI's ints can count. Nothing of that size is allocated: MPI is replaced by
 * functions that count. */
#include "sparkle_mpi.c"

#include <stdio.h>

#define CHECK(condition)                                    \
  do {                                                      \
    if (!(condition)) {                                     \
      printf("line %d: %s\n", __LINE__, #condition);        \
      exit(1);                                              \
    }                                                       \
  } while (0)

static size_t received, sent, broadcast_len, calls, waited, duplicates;
static void *attribute;
static const char *next_receive, *next_send;

static void count(int number, const char **next, const void *data, size_t *total) {
  CHECK(number > 0 && (size_t)number * sizeof(float) <= (size_t)1 << 30);
  CHECK(*next == data);
  *next += (size_t)number * sizeof(float);
  *total += (size_t)number;
  calls++;
}

int MPI_Irecv(void *data, int number, MPI_Datatype type, int rank, int tag, MPI_Comm communicator, MPI_Request *request) {
  CHECK(type == MPI_FLOAT && rank == 1 && tag == 9 && communicator == 77);
  count(number, &next_receive, data, &received);
  *request = (int)calls;
  return MPI_SUCCESS;
}

int MPI_Isend(const void *data, int number, MPI_Datatype type, int rank, int tag, MPI_Comm communicator, MPI_Request *request) {
  CHECK(type == MPI_FLOAT && rank == 1 && tag == 8 && communicator == 77);
  count(number, &next_send, data, &sent);
  *request = (int)calls;
  return MPI_SUCCESS;
}

int MPI_Waitall(int number, MPI_Request *requests, MPI_Status *statuses) {
  CHECK(statuses);
  for (int i = 0; i < number; i++) CHECK(requests[i] == i + 1);
  waited += (size_t)number;
  return MPI_SUCCESS;
}

int MPI_Bcast(void *data, int number, MPI_Datatype type, int root, MPI_Comm communicator) {
  CHECK(type == MPI_FLOAT && root == 0 && communicator == 77);
  count(number, &next_send, data, &broadcast_len);
  return MPI_SUCCESS;
}

int MPI_Comm_get_attr(MPI_Comm communicator, int found_key, void *value, int *found) {
  CHECK(communicator == 5 && found_key == 3);
  *(void **)value = attribute;
  *found = attribute != NULL;
  return MPI_SUCCESS;
}

int MPI_Comm_set_attr(MPI_Comm communicator, int found_key, void *value) {
  CHECK(communicator == 5 && found_key == 3);
  attribute = value;
  return MPI_SUCCESS;
}

int MPI_Comm_dup(MPI_Comm communicator, MPI_Comm *duplicate) {
  CHECK(communicator == 5);
  duplicates++;
  *duplicate = 77;
  return MPI_SUCCESS;
}

int MPI_Comm_create_keyval(MPI_Copy *copy, MPI_Delete *delete_function, int *new_key, void *extra) {
  CHECK(!copy && delete_function && !extra);
  *new_key = 3;
  return MPI_SUCCESS;
}

int MPI_Comm_set_errhandler(MPI_Comm communicator, int handler) {
  CHECK(communicator == 77 && handler == MPI_ERRORS_RETURN);
  return MPI_SUCCESS;
}

int MPI_Comm_test_inter(MPI_Comm communicator, int *inter) { return *inter = 0, communicator != 5; }
int MPI_Comm_rank(MPI_Comm communicator, int *rank) { return *rank = 0, communicator != 5; }
int MPI_Comm_size(MPI_Comm communicator, int *size) { return *size = 2, communicator != 5; }
int MPI_Comm_free(MPI_Comm *communicator) { return *communicator != 77; }
MPI_Comm MPI_Comm_f2c(MPI_Fint communicator) { return communicator; }

/* Not reached by this test. */
int MPI_Iprobe(int rank, int tag, MPI_Comm communicator, int *flag, void *status) {
  return *flag = rank + tag + communicator, !status;
}
int MPI_Allreduce(const void *from, void *to, int number, MPI_Datatype type, MPI_Op op, MPI_Comm communicator) {
  return !from + !to + number + type + op + communicator;
}
int MPI_Allgather(const void *from, int number, MPI_Datatype type, void *to, int each, MPI_Datatype other,
                  MPI_Comm communicator) {
  return !from + number + type + !to + each + other + communicator;
}
int MPI_Error_string(int code, char *text, int *len) { return *text = 0, *len = 0, code; }
int MPI_Get_processor_name(char *name, int *len) { return *name = 0, *len = 0; }

int main(void) {
  sparkle_transport transport;
  CHECK(sparkle_mpi_transport(5, &transport) == MPI_SUCCESS && sparkle_mpi_transport_f(5, &transport) == MPI_SUCCESS);
  CHECK(duplicates == 1 && transport.ranks == 2);
  /* 10 GiB and a float, 3 GiB, and nothing. The addresses are not those of memory. */
  const size_t len = ((size_t)10 << 28) + 1;
  float *far = (float *)((size_t)1 << 40);
  sparkle_message receive = {.data = far, .len = len, .rank = 1, .tag = 9};
  sparkle_message sends[2] = {{.data = far + len, .len = (size_t)3 << 28, .rank = 1, .tag = 8}, {.rank = 1, .tag = 8}};
  next_receive = (const char *)far, next_send = (const char *)(far + len);
  void *request = NULL;
  CHECK(transport.start(transport.user, sends, 2, &receive, 1, &request) == 0 && request);
  CHECK(received == len && sent == (size_t)3 << 28 && calls == 11 + 3 && waited == 0);
  CHECK(transport.finish(transport.user, request) == 0 && waited == 14);
  next_send = (const char *)far;
  CHECK(transport.broadcast(transport.user, 0, far, len) == 0 && broadcast_len == len);
  CHECK(free_duplicate(5, 3, attribute, NULL) == 0);
  printf("10 GiB in pieces\n");
  return 0;
}
