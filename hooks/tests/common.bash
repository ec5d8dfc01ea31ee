# shellcheck shell=bash disable=SC2034,SC2154
# What every hook has: help, configuration, phases.

has_help() { "$hooks/$1" --help >"$folder/output" 2>&1 && output_has '^Usage: strobe snapshot'; }

for hook in postgresql mariadb mssql libvirt qemu-guest-agent paused-guest; do
  passes "$hook has --help" has_help "$hook"
  case $hook in
    libvirt) echo 'DOMAIN=d' >"$folder/config" ;;
    qemu-guest-agent | paused-guest) echo 'SOCKET=/x' >"$folder/config" ;;
  esac
  refuses "$hook refuses an unknown phase" 'STROBE_PHASE is' hook thaw
  passes "$hook: post-thaw without a pre-freeze does nothing" hook post-thaw
  echo 'NO_SUCH_KEY=1' >"$folder/config"
  refuses "$hook refuses an unknown key" 'config:1:' hook pre-freeze
  chmod o+w "$folder/config"
  refuses "$hook refuses a configuration that others may write" 'writ' hook pre-freeze
  rm "$folder/config"
  refuses "$hook refuses a missing configuration that was named" 'o such file' hook pre-freeze
  : >"$folder/config"
done

# shellcheck disable=SC2016
printf 'USER=$(touch %s/ran)\n' "$folder" >"$folder/config"
hook=postgresql
refuses "configuration is not run as shell" . hook pre-freeze
passes "nothing in it was run" test ! -e "$folder/ran"
