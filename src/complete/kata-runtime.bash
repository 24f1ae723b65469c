# bash completion for kata-runtime: source <(kata-runtime completion bash)

_kata_runtime() {
    local word program=${COMP_WORDS[0]/#\~/$HOME}
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        COMPREPLY+=("$word")
    done < <("$program" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o nosort -F _kata_runtime kata-runtime
