# shellcheck shell=bash
# Sourced by the launchers beside it: the environment that every rank starts in.

bin=$(dirname "${BASH_SOURCE[0]}")/../.venv/bin
if [[ -d $bin ]]; then
    PATH=$(cd "$bin" && pwd):$PATH # the launcher and python of the checkout's environment, activated or not
fi

# TensorFlow's start-up notes. Its variable silences all of them but two, which it prints before it reads the variable:
# those are taken out of the stream by their exact words. Nothing that could be an error is.
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
NOTES='WARNING: All log messages before absl::InitializeLog\(\) is called|port\.cc:[0-9]+\] oneDNN custom operations are on'
without_notes() {
    trap '' INT TERM HUP # outlives the ranks, so that their last words get through
    exec grep --line-buffered --text --invert-match --extended-regexp "$NOTES" >&2
}
