"""Options that several verbs share, and their conversion to the API's fields."""
