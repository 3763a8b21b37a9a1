"""Where channels live: the contract that every engine keeps, and the engines that keep it."""
