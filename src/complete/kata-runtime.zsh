#compdef kata-runtime
# zsh completion for kata-runtime: source <(kata-runtime completion zsh), or save it as _kata-runtime in $fpath

_kata_runtime() {
    local word about
    local -a candidates
    while IFS=$'\t' read -r word about; do
        candidates+=("${word//:/\\:}${about:+:$about}")
    done < <("${~words[1]}" __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    _describe -V kata-runtime candidates
}

if [[ ${funcstack[1]} == _kata-runtime ]]; then
    _kata_runtime "$@"
else
    compdef _kata_runtime kata-runtime
fi
