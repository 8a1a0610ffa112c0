"""Images that callers send with their messages: hostile data, from hostile places."""
