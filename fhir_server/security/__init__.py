"""Authentication, access policy and audit: the interfaces, and what a server without authentication uses."""
