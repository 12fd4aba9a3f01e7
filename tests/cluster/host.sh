# Process 1 of a host of the test bed: gives the host a name and disks of its own, then becomes its SSH server.
# Usage: bash host.sh FOLDER NAME SHARED-MEMORY-BYTES ENVIRONMENT PATH…   (PATHs stay visible below /tmp and /srv)
set -eu
folder=$1 name=$2 shared_memory=$3; shift 3
hostname "$name"
# The environment under test belongs to the machine: a host reads it and must never install into it.
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
for place in tmp srv; do
  for path in "$@"; do
    case $path in /$place/*) mkdir -p "$folder$path" && mount --rbind "$path" "$folder$path" ;; esac
  done
done
mount --rbind "$folder/etc/passwd" /etc/passwd
mount --rbind "$folder/etc/hosts" /etc/hosts
mount -t tmpfs -o size="$shared_memory" tmpfs /dev/shm
mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd
mount --rbind "$folder/srv" /srv
settings=$(cat "$folder/sshd_config")  # once /tmp is the host's own, the folder may be out of sight
printf '%s\n' "$settings" > /run/sshd_config && cp "$folder/host_key" "$folder/authorized_keys" /run/
exec 2>>"$folder/sshd.log"
mount --rbind "$folder/tmp" /tmp
exec /usr/sbin/sshd -D -e -f /run/sshd_config
