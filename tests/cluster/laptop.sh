# Runs a command with a /tmp of its own. Usage: bash laptop.sh FOLDER PATH… -- COMMAND…   (PATHs stay visible in /tmp)
set -eu
folder=$1; shift
while [ "$1" != -- ]; do
  case $1 in /tmp/*) mkdir -p "$folder$1" && mount --rbind "$1" "$folder$1" ;; esac
  shift
done
shift
mount --rbind "$folder/tmp" /tmp
exec "$@"
