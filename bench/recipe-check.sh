#!/bin/bash
# What admins run today instead of a check of ours: the state of one guest, asked of virsh, with Sensu's exit statuses.
# recipe-check.sh URI GUEST
state=$(virsh -q -r -c "$1" domstate "$2" 2>&1) || { echo "UNKNOWN: $state"; exit 3; }
case $state in
  running) echo "OK: $2 is running"; exit 0 ;;
  paused) echo "WARNING: $2 is paused"; exit 1 ;;
  *) echo "CRITICAL: $2 is $state"; exit 2 ;;
esac
