"""What interactions and writes share: a request and a response, the search parameters in force, headers, criteria."""
