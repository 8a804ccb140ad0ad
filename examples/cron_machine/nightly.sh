#!/bin/sh
# Back up a folder, and check the archive. Each step is a recorded job, and the correlation id ties
# the steps of a night together. Prints nothing if all goes well, so cron mails only failures.
#
# Usage: nightly.sh [FOLDER]     the default is ~/documents; archives go to ~/backups
set -eu

folder=${1:-$HOME/documents}
today=$(date +%F)
archive=$HOME/backups/$today.tar.gz
mkdir -p "$HOME/backups"

recorded() { # recorded TASK COMMAND [ARGUMENT ...]
    task=$1
    shift
    jobhistory run --task "$task" --correlation-id "nightly-$today" --retention '365 days' -- "$@"
}

recorded back-up tar -czf "$archive" -C "$folder" .
recorded check-archive gzip -t "$archive"
