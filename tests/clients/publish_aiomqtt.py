"""aiomqtt as a device: frames of our own SDK at QoS 1, then the verdict. Arguments: port, key, 3 or 5."""
import asyncio, json, sys, time
sys.path.insert(0, sys.argv[4])
import aiomqtt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from vitalog_device import Device, series


async def main():
    version = {"3": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}[sys.argv[3]]
    with open(sys.argv[2], "rb") as pem:
        device = Device(load_pem_private_key(pem.read(), None))
    async with aiomqtt.Client("127.0.0.1", int(sys.argv[1]), identifier="aio", protocol=version) as client:
        await client.subscribe(f"v1/d/{device.short_id}/verdict", qos=1)
        now_us = time.time_ns() // 1000
        for n in range(3):
            frame = device.frame([series(1, "u8", [60 + n], 1_000_000)], now_us + n, n)
            await client.publish(f"v1/d/{device.short_id}/frames", frame, qos=1, timeout=10)
        async with asyncio.timeout(10):
            async for message in client.messages:
                acked = json.loads(message.payload)["acked_to"]
                if acked and acked["boot"] == device.boot.hex() and acked["seq"] == 2:
                    print("verdict seq 2")
                    return


asyncio.run(main())
