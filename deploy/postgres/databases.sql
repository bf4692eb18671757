-- Read by the Postgres of docker-compose.yml when it makes its data: the registry's database beside Kept's own.
CREATE DATABASE registry;
