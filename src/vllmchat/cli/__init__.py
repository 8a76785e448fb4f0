"""The command line: `vllmchat`. It needs `pip install 'vllmchat[cli]'`."""
