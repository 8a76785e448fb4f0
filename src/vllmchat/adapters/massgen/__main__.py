"""`python -m vllmchat.adapters.massgen`: MassGen's command line with our backend for `type: vllm`."""

from vllmchat.adapters.massgen.launcher import main

main()
