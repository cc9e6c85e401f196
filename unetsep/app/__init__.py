"""A local web app and an HTTP API: one process serves and queues, another one separates.

choices      models, stems and formats on offer, in plain words; names of songs
folder       a temporary folder, which the next start removes if this one is killed
jobs         the queue: jobs that wait, run or are done; limits and metrics
worker       the process that separates, one song after another
process      starting that process, talking to it, ending it
uploads      streaming a song from a request to the disk, within limits
connections  timeout of idle connections
guard        refusal of cross-site requests; headers of every response
handlers     the response at each address
server       running the app from start to end
openapi      the API as an OpenAPI document and as a page
"""
