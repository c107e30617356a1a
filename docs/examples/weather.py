"""An agent with a tool: the weather of a few cities.

legato up --agent docs.examples.weather:agent        # in a checkout
cp docs/examples/weather.py . && legato up --agent weather:agent

Without a key, write this in the chat:
#script tool=weather:{"city": "Oslo"} echo
"""

from typing import Annotated, Any, Literal

from legato.worker.agents import Agent, Meta, ToolError, tool

TABLE = {"oslo": ("snow", -3), "lima": ("fog", 18), "cairo": ("sun", 31)}
"""City -> sky and degrees Celsius. A real tool would ask a service here."""


@tool(on_interrupted="retry")  # reading twice does no harm
async def weather(city: Annotated[str, Meta(max_length=80)], unit: Literal["c", "f"] = "c") -> dict[str, Any]:
    """Current weather of a city.

    city: name of the city, in English
    unit: c for Celsius, f for Fahrenheit
    """
    if city.lower() not in TABLE:
        raise ToolError(f"No weather is known for {city}, only for {', '.join(TABLE)}.")
    sky, celsius = TABLE[city.lower()]
    return {"city": city, "sky": sky, "degrees": celsius if unit == "c" else round(celsius * 1.8 + 32)}


agent = Agent(
    system="Answer questions about the weather with the tool. Be brief.",
    tools=[weather],
    show_tools="output",
)
