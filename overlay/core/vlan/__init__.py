"""VLANs of ports, inside the network that the containers are on."""
