# fish completion for kata-runtime: kata-runtime completion fish | source

function __kata_runtime_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    $words[1] __complete -- $words[2..-1] "$current" 2>/dev/null
end

complete -c kata-runtime -f -k -a '(__kata_runtime_complete)'
