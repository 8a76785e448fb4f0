# What vllmchat.adapters.massgen uses of MassGen, public or not. MassGen has no types of its own.
# `python scripts/massgen_contract.py` compares these files with the installed package.
