"""DNS records that people add: changing them from any host, and removing them everywhere."""
