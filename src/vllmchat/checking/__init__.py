"""Request parameters judged before anything is sent: the words of the rules, and how they are compiled and told."""
