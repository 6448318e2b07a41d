"""What commands share: arguments, messages, output folders."""
