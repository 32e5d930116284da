# A CRIU that leaves with a status of its own when the real one has ended:
#     bash leaver.sh criu swrk FD
# The socket is CRIU's alone, so that phaul sees its end when CRIU dies.
"$@" &
socket=${3:-9}
exec {socket}>&-
wait $!
exit 3
