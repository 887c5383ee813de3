#!/bin/sh
# Checks an image without a container engine: its root folder, run as an engine would run it. Read-only, as user 10001
# without any rights, as process 1, in a network of its own; nothing writable but the volume.
# Needs Linux, root, unshare, iproute2 and curl.
#
#   buildah bud --isolation chroot --format docker -t todo-api .
#   scripts/container-check.sh "$(buildah mount "$(buildah from todo-api)")"
set -eu
image=${1:?Usage: container-check.sh ROOT_FOLDER_OF_THE_IMAGE}

if [ "${inside:-}" != yes ]; then
  # Namespaces of our own: every mount and every process is gone when this script is.
  inside=yes exec unshare --mount --net --pid --mount-proc --fork --kill-child "$0" "$image"
fi

work=$(mktemp -d)
root=$work/root
trap 'umount -R -l "$root" 2> /dev/null; rm -rf "$work"' EXIT

fail() {
  echo "FAILED: $*"
  cat "$work/out" "$work/log" 2> /dev/null
  exit 1
}
expect() {
  [ "$2" = "$3" ] || fail "$1: expected $2, got $3"
  echo "ok  $1: $3"
}

# What an engine adds: /proc, /dev, and a volume that takes owner and mode from the image.
cp -a "$image" "$root"
cp -a "$root/data" "$work/volume"
mkdir -p "$root/proc" "$root/dev"
touch "$root/dev/null" "$root/dev/urandom"
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t proc proc "$root/proc"
for device in null urandom; do mount --bind "/dev/$device" "$root/dev/$device"; done
mount --bind "$work/volume" "$root/data"
ip link set lo up

# In the shell's place, so that a signal for the process is one for the program.
program='exec env -i PATH="$PATH" HOST=0.0.0.0 PORT=8000 DATA_DIR=/data setpriv --no-new-privs \
  chroot --userspec=10001:10001 --groups=10001 "$0" /todo-api "$@"'
todo_api() { sh -c "$program" "$root" "$@"; }
api=http://127.0.0.1:8000/api/v1
call() { curl --silent --show-error --max-time 10 --output "$work/answer" --write-out '%{http_code}' "$@"; }
field() { sed -E "s/.*\"$1\":\"([^\"]*)\".*/\1/" "$work/answer"; }
code() {
  "$@" > "$work/out" 2>&1 && echo 0 || echo $?
}

start() {
  unshare --pid --fork --kill-child sh -c "$program" "$root" > "$work/log" 2>&1 &
  outer=$!
  tries=0
  until [ "$(code todo_api healthcheck)" = 0 ]; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || fail 'it is not ready after 30 s'
    sleep 0.5
  done
}
process() { tr -d ' ' < "/proc/$outer/task/$outer/children"; }
stop() {
  since=$(date +%s%N)
  kill -TERM "$(process)"
  status=0
  wait "$outer" || status=$?
  expect "exit code $((($(date +%s%N) - since) / 1000000)) ms after SIGTERM" 0 "$status"
}

expect 'healthcheck before the start' 1 "$(code todo_api healthcheck)"
start
expect 'healthcheck' 0 "$(code todo_api healthcheck)"
expect 'user and rights' '10001 0000000000000000' "$(
  awk '/^Uid|^CapEff/ { printf "%s%s", sep, $2; sep = " " }' "/proc/$(process)/status"
)"

user='{"email":"ada@example.com","password":"correct horse"}'
expect 'register' 201 "$(call --json "$user" $api/auth/register)"
expect 'login' 200 "$(call --json "$user" $api/auth/login)"
token=$(field access_token)
expect 'create a task' 201 "$(call --json '{"title":"Buy milk"}' -H "Authorization: Bearer $token" $api/tasks)"
task=$(field id)
expect 'user list, beside the service' 0 "$(code todo_api user list)"
grep -q ada@example.com "$work/out" || fail 'the list lacks the user'
expect 'backup, while it serves' 0 "$(code todo_api backup -)"
stop
start
expect 'the task after a restart, with the same token' 200 "$(call -H "Authorization: Bearer $token" "$api/tasks/$task")"
expect 'its title' 'Buy milk' "$(field title)"
stop

echo
echo 'The volume:'
(cd "$work/volume" && find . -maxdepth 1 -printf '%M %U:%G %s %f\n' | sort -k4)
echo 'The image:'
(cd "$image" && find . -type f -printf '%M %U:%G %9s /%P\n' -o -type d -empty -printf '%M %U:%G %9s /%P/\n')
