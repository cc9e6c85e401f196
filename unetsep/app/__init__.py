"""A local web app and an HTTP API: one program serves and queues, a process of its own separates.

choices      models, stems and formats that are offered, in plain words; names of songs
folder       a folder for temporary files that the next start removes if this one is killed
jobs         the queue: what is waiting, running and done, its limits and its figures
worker       the program that separates, one song after another
process      starting that program, talking to it, ending it
uploads      a song from a request to the disk, within limits while it arrives
connections  connections that must say in time what they want
guard        requests that come from elsewhere, refused; headers of every answer
handlers     what it answers at each address
server       running it, from the first moment to the last
openapi      what the API promises, as OpenAPI and as a page
"""
