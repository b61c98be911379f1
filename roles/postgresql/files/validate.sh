command -v patroni >/dev/null || exit 127
complaints=$(patroni --validate-config "$1" 2>&1) && exit
complaints=$(echo "$complaints" | grep -vE "already in use|not reachable") || exit 0
echo "$complaints"
exit 1
