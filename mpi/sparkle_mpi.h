/* Groups of Sparkle over the ranks of MPI.
 *
 * libsparkle contains no MPI. Compile sparkle_mpi.c with your MPI's compiler and link it with your program:
 *
 *   mpicc program.c sparkle_mpi.c -lsparkle
 *
 * Communicators are duplicated once each, so Sparkle's messages never meet yours. The duplicate is kept with the communicator and
 * freed with it: destroy the groups of a communicator before you free it, and before MPI_Finalize. MPI must have been
 * initialised; MPI_THREAD_FUNNELED suffices if only the main thread calls groups.
 */
#ifndef SPARKLE_MPI_H
#define SPARKLE_MPI_H

#include <mpi.h>

#include "sparkle.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills *out for the ranks of `communicator`. Collective. Returns MPI_SUCCESS or an error of MPI. */
int sparkle_mpi_transport(MPI_Comm communicator, sparkle_transport *out);

/* The same for the communicator of a Fortran program: an INTEGER, or MPI_VAL of a TYPE(MPI_Comm). */
int sparkle_mpi_transport_f(MPI_Fint communicator, sparkle_transport *out);

/* Creates a group of the ranks of `communicator`; this rank computes on `device`, and NULL means "auto". Collective. */
sparkle_status sparkle_mpi_group(MPI_Comm communicator, sparkle_device *device, sparkle_group **out);

/* The same for the communicator of a Fortran program. */
sparkle_status sparkle_mpi_group_f(MPI_Fint communicator, sparkle_device *device, sparkle_group **out);

/* Writes the selector of the device for this rank to `selector`: the ranks of a computer take its hardware GPUs in turn, and the
 * CPU if there are none. Computers are told apart by MPI_Get_processor_name. Collective. Returns MPI_SUCCESS or an error
 * of MPI. */
int sparkle_mpi_device(MPI_Comm communicator, char selector[32]);

/* The same for the communicator of a Fortran program. */
int sparkle_mpi_device_f(MPI_Fint communicator, char selector[32]);

#ifdef __cplusplus
}
#endif

#endif
