/* What sparkle_mpi.c uses of MPI, for tests/mpi/large.c: one rank of two, whose messages are counted and neither read nor
 * written. */
#ifndef COUNTED_MPI_H
#define COUNTED_MPI_H

#include <stddef.h>

typedef int MPI_Comm, MPI_Fint, MPI_Request, MPI_Datatype, MPI_Op, MPI_Status;
typedef int MPI_Copy(MPI_Comm, int, void *, void *, void *, int *), MPI_Delete(MPI_Comm, int, void *, void *);
enum {
  MPI_SUCCESS = 0, MPI_ERR_COUNT = 2, MPI_ERR_COMM = 5, MPI_ERR_NO_MEM = 34, MPI_KEYVAL_INVALID = -1, MPI_FLOAT = 1, MPI_CHAR = 2,
  MPI_INT64_T = 3, MPI_MAX = 1, MPI_ANY_SOURCE = -1, MPI_ANY_TAG = -1, MPI_ERRORS_RETURN = 1,
  MPI_MAX_ERROR_STRING = 64, MPI_MAX_PROCESSOR_NAME = 64
};
#define MPI_STATUS_IGNORE NULL
#define MPI_IN_PLACE NULL
#define MPI_COMM_NULL_COPY_FN NULL

int MPI_Irecv(void *data, int count, MPI_Datatype type, int rank, int tag, MPI_Comm communicator, MPI_Request *request);
int MPI_Isend(const void *data, int count, MPI_Datatype type, int rank, int tag, MPI_Comm communicator, MPI_Request *request);
int MPI_Waitall(int count, MPI_Request *requests, MPI_Status *statuses);
int MPI_Iprobe(int rank, int tag, MPI_Comm communicator, int *flag, void *status);
int MPI_Bcast(void *data, int count, MPI_Datatype type, int root, MPI_Comm communicator);
int MPI_Allreduce(const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm communicator);
int MPI_Allgather(const void *from, int count, MPI_Datatype type, void *to, int each, MPI_Datatype other, MPI_Comm communicator);
int MPI_Error_string(int code, char *text, int *len);
int MPI_Comm_create_keyval(MPI_Copy *copy, MPI_Delete *remove, int *key, void *extra);
int MPI_Comm_get_attr(MPI_Comm communicator, int key, void *value, int *found);
int MPI_Comm_set_attr(MPI_Comm communicator, int key, void *value);
int MPI_Comm_dup(MPI_Comm communicator, MPI_Comm *duplicate);
int MPI_Comm_free(MPI_Comm *communicator);
int MPI_Comm_set_errhandler(MPI_Comm communicator, int handler);
int MPI_Comm_test_inter(MPI_Comm communicator, int *inter);
int MPI_Comm_rank(MPI_Comm communicator, int *rank);
int MPI_Comm_size(MPI_Comm communicator, int *size);
int MPI_Get_processor_name(char *name, int *len);
MPI_Comm MPI_Comm_f2c(MPI_Fint communicator);

#endif
