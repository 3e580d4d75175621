/* What hyptracefs/conduit.py sees of the socket conduit. */
uintptr_t socket_conduit_create(int fd);
void socket_conduit_hang_up(uintptr_t conduit);
void socket_conduit_destroy(uintptr_t conduit);
int socket_conduit_error(uintptr_t conduit);
