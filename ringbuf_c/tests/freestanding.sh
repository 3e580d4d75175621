#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# freestanding.sh NM OBJECT...: fail if the objects together need anything from outside.
set -eu
nm=$1
shift
[ $# -gt 0 ] || { echo "no objects"; exit 1; }

defined=$(mktemp)
trap 'rm -f "$defined"' EXIT
"$nm" --defined-only --extern-only --format=posix "$@" | awk 'NF > 1 { print $1 }' | sort -u >"$defined"
[ -s "$defined" ] || { echo "no symbols in: $*"; exit 1; }
# A linker makes this one itself.
missing=$("$nm" -u --format=posix "$@" | awk 'NF > 1 { print $1 }' | sort -u |
	grep -vx _GLOBAL_OFFSET_TABLE_ | comm -23 - "$defined")
[ -z "$missing" ] || { echo "undefined:" $missing; exit 1; }
